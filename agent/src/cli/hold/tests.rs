use super::*;
use crate::settings::{Fragment, from_fragments};
use crate::upgrade::journal::{Journal, Loaded, Reading};
use crate::upgrade::state::State;
use crate::upgrade::state::tests::record;

/// A router whose ModemManager and watchcat start at boot, and whose interface is known.
fn router(dir: &Path) -> Settings {
    let at = |path: &str| dir.join(path);
    for sub in ["proc/sys/kernel/random", "etc/init.d", "etc/rc.d", "profiles"] {
        std::fs::create_dir_all(at(sub)).unwrap();
    }
    std::fs::write(at("proc/sys/kernel/random/boot_id"), "this-boot\n").unwrap();
    for link in ["S70modemmanager", "K10modemmanager", "S9xqmodem", "S95other"] {
        std::fs::write(at("etc/rc.d").join(link), "").unwrap();
    }
    let text = format!(
        "[coordinator]\nurl = \"https://h\"\n[paths]\nstate_dir = \"{0}/state\"\n\
         run_dir = \"{0}/run\"\nproc = \"{0}/proc\"\ninit_dir = \"{0}/etc/init.d\"\n\
         profiles_dir = \"{0}/profiles\"\n",
        dir.display()
    );
    from_fragments([Fragment::from_toml(&text, "t").unwrap()]).unwrap()
}

fn journaled(settings: &Settings, boot_id: &str, holding: bool) {
    let path = journal_path(settings, &settings.slots[0]);
    let (mut journal, loaded) = Journal::open(&path, boot_id, Reading::Whole).unwrap();
    assert!(matches!(loaded, Loaded::Empty | Loaded::State { .. }));
    let mut record = record();
    record.holding = holding;
    journal.save(&State::new(record)).unwrap();
}

fn held(settings: &Settings) -> Vec<Holder> {
    assert_eq!(hold(settings), ExitCode::SUCCESS);
    let run_dir = settings.paths.run_dir.join("main");
    let programs = settings.holders.programs(&settings.paths);
    Holders::new(&run_dir, programs).taken().unwrap()
}

#[test]
fn what_starts_at_boot_is_held_after_an_interrupted_flash_and_at_no_other_time() {
    let dir = tempfile::tempdir().unwrap();
    let settings = router(dir.path());
    assert_eq!(held(&settings), [], "no journal");
    assert!(!settings.paths.state_dir.exists(), "looking makes nothing");
    journaled(&settings, "boot-before", false);
    assert_eq!(held(&settings), [], "nothing was held");
    journaled(&settings, "this-boot", true);
    assert_eq!(held(&settings), [], "an agent that restarts has it all in hand");
    journaled(&settings, "boot-before", true);
    assert_eq!(held(&settings), [Holder::Service("modemmanager".into())]);
    assert_eq!(held(&settings).len(), 1, "asked twice, noted once");
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a test plays the world around the agent")]
fn journals_on_what_is_mounted_late_are_waited_for() {
    // Another file system, where there is one.
    let Ok(stick) = tempfile::tempdir_in("/dev/shm") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut settings = router(dir.path());
    let point = dir.path().join("mnt");
    std::fs::create_dir(&point).unwrap();
    let mounts = Mounts::of(vec![point.clone()]);
    settings.paths.state_dir = stick.path().join("state");
    journaled(&settings, "boot-before", true);
    settings.paths.state_dir = point.join("stick/state");
    let held = || {
        let run_dir = settings.paths.run_dir.join("main");
        Holders::new(&run_dir, settings.holders.programs(&settings.paths)).taken().unwrap()
    };
    let not_long = Duration::from_millis(50);
    assert_eq!(hold_once_mounted(&settings, &mounts, not_long), ExitCode::SUCCESS);
    assert_eq!(held(), [], "not for ever");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            std::os::unix::fs::symlink(stick.path(), point.join("stick")).unwrap();
        });
        hold_once_mounted(&settings, &mounts, Duration::from_secs(20));
    });
    assert_eq!(held(), [Holder::Service("modemmanager".into())]);
}

/// A router that holds ModemManager, whose script writes down how it is called.
fn holding(dir: &Path) -> (Settings, impl Fn() -> String) {
    let settings = router(dir);
    journaled(&settings, "boot-before", true);
    let (script, calls) = (dir.join("etc/init.d/modemmanager"), dir.join("calls"));
    crate::testing::script(&script, &format!("echo $1 >> {}", calls.display()));
    assert_eq!(held(&settings).len(), 1);
    (settings, move || std::fs::read_to_string(&calls).unwrap_or_default())
}

#[test]
fn what_no_agent_comes_for_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let (settings, calls) = holding(dir.path());
    assert_eq!(watch(&settings, Duration::from_millis(50)), ExitCode::SUCCESS);
    assert_eq!(calls(), "start\n");
    assert_eq!(watch(&settings, Duration::from_secs(900)), ExitCode::SUCCESS, "nothing is left");
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a test plays the world around the agent")]
fn a_watcher_that_is_being_ended_is_followed_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (settings, calls) = holding(dir.path());
    let lock = || files::try_lock(&settings.paths.run_dir.join("watch.lock")).unwrap().unwrap();
    let (not_long, grace) = (Duration::from_millis(50), Duration::from_millis(50));
    let other = lock();
    assert_eq!(watch_unless_watched(&settings, grace, not_long), ExitCode::SUCCESS);
    assert_eq!(calls(), "", "the other is at it");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            drop(other);
        });
        watch(&settings, grace);
    });
    assert_eq!(calls(), "start\n");
}

#[test]
fn whom_the_upgrade_had_taken_is_held_whoever_the_settings_name() {
    let dir = tempfile::tempdir().unwrap();
    let settings = router(dir.path());
    let path = journal_path(&settings, &settings.slots[0]);
    let (mut journal, _) = Journal::open(&path, "boot-before", Reading::Whole).unwrap();
    let (mut record, named) = (record(), |name: &str| name.to_owned());
    record.holding = true;
    record.held = vec![
        Holder::Interface(named("wwan")),
        Holder::Service(named("other")),
        Holder::Service(named("disabled")),
        Holder::Modem(named("/sys/devices/2-1")),
    ];
    journal.save(&State::new(record)).unwrap();
    let held = held(&settings);
    let services = ["modemmanager", "other"].map(|name| Holder::Service(named(name)));
    assert_eq!(held[0], Holder::Interface(named("wwan")));
    assert_eq!(held[1..], services);
}

/// netifd with one interface, which is not there before `state` is.
fn netifd(dir: &Path) -> Settings {
    let settings = router(dir);
    let ubus = dir.join("ubus");
    let script = format!(
        "cd {}\necho \"$*\" >> calls\n[ -e state ] || exit 4\n\
         case \"$3\" in status) cat state ;; down) echo '{{\"up\":false}}' > state ;; esac\n",
        dir.display()
    );
    crate::testing::script(&ubus, &script);
    let mut settings = settings;
    settings.paths.ubus = ubus;
    settings
}

#[tokio::test]
async fn an_interface_is_taken_down_as_often_as_netifd_brings_it_up_until_an_agent_comes() {
    let dir = tempfile::tempdir().unwrap();
    let settings = netifd(dir.path());
    crate::files::create_private_dir(&settings.paths.run_dir).unwrap();
    let run_dir = settings.paths.run_dir.join("main");
    let holders = Holders::new(&run_dir, settings.holders.programs(&settings.paths));
    holders.note(&[Holder::Interface("wwan".into())]).unwrap();
    let agent_lock = Presence::lock_path(&settings.paths.run_dir);
    let calls = |what: &str| {
        let calls = std::fs::read_to_string(dir.path().join("calls")).unwrap_or_default();
        calls.lines().filter(|line| *line == format!("call network.interface.wwan {what}")).count()
    };
    let until = async |what: &str, count: usize| {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while calls(what) < count {
            assert!(std::time::Instant::now() < deadline, "{what} was not called {count} times");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let up = || crate::files::publish(&dir.path().join("state"), b"{\"up\":true}\n").unwrap();
    let play = async {
        until("status", 2).await;
        assert_eq!(calls("down"), 0, "netifd is not there yet");
        up();
        until("down", 1).await;
        up();
        until("down", 2).await;
        crate::files::try_lock(&agent_lock).unwrap().unwrap()
    };
    // From there on it is the agent's business: otherwise this would not end.
    let patience = Duration::from_secs(3600);
    let (agent, ()) = tokio::join!(play, keep_interfaces_down(&holders, &agent_lock, patience));
    assert_eq!(holders.taken().unwrap().len(), 1, "it stays on record, to be given back");
    drop(agent);
}
