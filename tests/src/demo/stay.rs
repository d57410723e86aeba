//! `--stay`: everything goes on, and a person is told how to talk to it.

use super::Run;
use crate::coordinator::Coordinator;
use std::path::Path;

/// Prints how to follow along, and waits for Ctrl-C.
pub async fn serve(
    coordinator: &Coordinator,
    runs: &[Run],
    exe: &Path,
    dir: &Path,
) -> anyhow::Result<()> {
    let Some(run) = runs.last() else { return Ok(()) };
    let boot = &coordinator.bootstrap;
    let (https, mqtt) = (coordinator.https, coordinator.mqtt);
    let (url, pin, token, org) =
        (coordinator.url(), &boot.pin, &boot.api_token, &boot.organization);
    let (device, operation) = (&run.device, &run.operation);
    let certificate = dir.join("coordinator/tls/certificate.pem");
    println!(
        r#"The coordinator stays up until Ctrl-C. In another terminal:

  export MODEM_UPGRADER_URL={url} MODEM_UPGRADER_TOKEN={token} MODEM_UPGRADER_PIN={pin}
  alias modem-upgrader='{exe} modem-upgrader'

  modem-upgrader devices                               # the devices
  modem-upgrader batch list                            # the batches; then `batch show`, `batch retry`

  # the same without it
  api=$MODEM_UPGRADER_URL/api/v1/modem-upgrader
  ask() {{ curl -sk --pinnedpubkey "$MODEM_UPGRADER_PIN" -H "Authorization: Bearer $MODEM_UPGRADER_TOKEN" "$@"; }}

  ask $api/device/                                     # the devices
  ask $api/upgrade-operation/{operation}/              # an operation
  ask -N $api/upgrade-operation/{operation}/events/    # the same, live
  ask -X POST $api/users/mqtt-token/                   # a read-only token for MQTT

  mosquitto_sub --cafile {certificate} -h {host} -p {port} -u dashboard -P "$mqtt_token" -v -t 'mu/{org}/#'

  # once more, with the image that the device has now: nothing is to be done, so no upgrade starts
  image=$(ask $api/device/{device}/modem-firmware/ | sed 's/.*"image":"\([^"]*\)".*/\1/')
  ask -X PATCH -H 'Content-Type: application/json' -d "{{\"image\":\"$image\"}}" $api/device/{device}/modem-firmware/
"#,
        exe = exe.display(),
        certificate = certificate.display(),
        host = https.ip(),
        port = mqtt.port(),
    );
    tokio::signal::ctrl_c().await?;
    Ok(())
}
