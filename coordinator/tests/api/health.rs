use std::sync::atomic::Ordering;

use coordinator::lines::reason::Reason;

use crate::world::*;

#[tokio::test]
async fn alive_ready_and_counted() {
    let world = World::new().await;
    world.device(&["main"]).await;
    assert_eq!(world.get("", "/healthz").await.bytes, b"ok\n");
    assert_eq!(world.get("", "/readyz").await.bytes, b"ready\n");
    let metrics = world.get("", "/metrics").await;
    assert!(metrics.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    let text = String::from_utf8(metrics.bytes).unwrap();
    assert!(text.contains("modem_upgrader_devices{state=\"accepted\"} 1\n"), "{text}");
    assert!(text.contains("modem_upgrader_devices_connected 0\n"), "{text}");

    world.app.counters.count(Reason::Flood);
    world.app.counters.uplinks.fetch_add(3, Ordering::Relaxed);
    let later = String::from_utf8(world.get("", "/metrics").await.bytes).unwrap();
    assert!(later.contains("modem_upgrader_uplinks_total 3\n"), "{later}");
    let flood = "modem_upgrader_lines_refused_or_ended_total{reason=\"flood\"} 1\n";
    assert!(later.contains(flood) && !text.contains(flood), "{later}");

    world.device(&["main"]).await;
    let again = String::from_utf8(world.get("", "/metrics").await.bytes).unwrap();
    assert_eq!(again, later, "not counted anew for everybody who asks");
    world.app.store.stop();
}
