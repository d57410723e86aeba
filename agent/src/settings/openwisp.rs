//! What openwisp-config, a neighbour on many routers, has in `/etc/config/openwisp` that is of use here: the
//! device's uuid, as a hint and never as a proof, and the CA of its server. Its secrets are not taken.

use super::fragment::{Fragment, Section, Value};
use super::origin::Origin;
use super::uci::Package;

/// Where openwisp-config has its settings.
pub const FILE: &str = "/etc/config/openwisp";

/// The section of a [`Fragment`] that carries them.
pub const SECTION: &str = "openwisp";

/// Its options, under our names, and what a person should know about them.
pub fn fragment(package: &Package) -> (Fragment, Option<&'static str>) {
    let mut fragment = Fragment::default();
    let Some(controller) = package.of_kind("controller").next() else { return (fragment, None) };
    // What is odd is its owner's business and not a reason to stop here.
    let mut take = |theirs: &str, ours: &str, fits: fn(&str) -> bool| {
        let Some(text) = controller.text(theirs).filter(|text| fits(text)) else { return };
        let line = controller.options.iter().find(|o| o.name == theirs).map(|o| o.line);
        let name = controller.name.as_deref().unwrap_or_default();
        let section = format!("controller '{name}'");
        let origin = Origin::Uci { path: FILE.to_owned(), line, section };
        fragment.push(Section::plain(SECTION), ours, Value::Text(text.to_owned()), origin);
    };
    take("uuid", "uuid", is_uuid);
    // A file goes before a directory, as curl has it.
    take("capath", "ca_file", is_absolute);
    take("cacert", "ca_file", is_absolute);
    let unverified = controller.text("verify_ssl") == Some("0");
    let note = "openwisp-config does not verify its server (verify_ssl '0'); \
                this agent verifies its own all the same";
    (fragment, unverified.then_some(note))
}

fn is_uuid(text: &str) -> bool {
    matches!(text.len(), 32 | 36) && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

fn is_absolute(text: &str) -> bool {
    text.starts_with('/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Settings, from_fragments, uci};
    use std::path::Path;

    const OPENWISP: &str = "config controller 'http'\n\toption url 'https://openwisp.example'\n\
         \toption verify_ssl '0'\n\toption uuid '7ca1b9ab5e3d4f0b8a1f64a1b1c3f3aa'\n\
         \toption key 'secret-key'\n\toption shared_secret 'top-secret'\n\
         \toption capath '/etc/ssl/openwisp'\n\toption cacert '/etc/openwisp/ca.pem'\n";

    fn settings(openwisp: &str, own: &str) -> Settings {
        let (fragment, _) = fragment(&uci::parse(openwisp).unwrap());
        let own = format!("[coordinator]\nurl = \"https://h\"\n{own}");
        from_fragments([fragment, Fragment::from_toml(&own, "t").unwrap()]).unwrap()
    }

    #[test]
    fn its_uuid_and_ca_are_taken_and_no_secret() {
        let settings = settings(OPENWISP, "");
        let uuid = "7ca1b9ab5e3d4f0b8a1f64a1b1c3f3aa";
        assert_eq!(settings.openwisp_uuid.as_deref(), Some(uuid));
        let ca_file = settings.coordinator.trust.ca_file.as_deref();
        assert_eq!(ca_file, Some(Path::new("/etc/openwisp/ca.pem")));
        assert!(!settings.effective.to_string().contains("secret"));
        let (_, note) = fragment(&uci::parse(OPENWISP).unwrap());
        assert!(note.is_some_and(|note| note.contains("verify_ssl")));
    }

    #[test]
    fn our_own_trust_goes_first() {
        let pin = "pins = [\"sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\"]";
        assert_eq!(settings(OPENWISP, pin).coordinator.trust.ca_file, None);
        let both = settings(OPENWISP, &format!("{pin}\ntrust = \"openwisp\""));
        let theirs = Some(Path::new("/etc/openwisp/ca.pem"));
        assert_eq!(both.coordinator.trust.ca_file.as_deref(), theirs);
        assert_eq!(both.coordinator.trust.pins.len(), 1);
        let own = settings(OPENWISP, "ca_file = \"/own.pem\"");
        assert_eq!(own.coordinator.trust.ca_file.as_deref(), Some(Path::new("/own.pem")));
        let system = settings(OPENWISP, "trust = \"system\"");
        let roots = Some(Path::new("/etc/ssl/certs/ca-certificates.crt"));
        assert_eq!(system.coordinator.trust.ca_file.as_deref(), roots);
    }

    #[test]
    fn a_directory_will_do_and_nothing_leaves_the_systems_roots() {
        let only = |option: &str| format!("config controller 'http'\n\t{option}\n");
        let settings_of = |option| settings(&only(option), "").coordinator.trust.ca_file;
        let directory = settings_of("option capath '/etc/ssl/openwisp'");
        assert_eq!(directory.as_deref(), Some(Path::new("/etc/ssl/openwisp")));
        let system = Path::new("/etc/ssl/certs/ca-certificates.crt");
        assert_eq!(settings_of("option cacert ''").as_deref(), Some(system));
    }

    #[test]
    fn a_uuid_that_is_none_is_no_reason_to_stop() {
        let odd = "config controller\n option uuid '<script>'\n option cacert 'relative'\n";
        let settings = settings(odd, "");
        assert_eq!(settings.openwisp_uuid, None);
    }
}
