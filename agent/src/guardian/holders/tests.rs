use super::*;

/// A router whose programs write down how they were called, and keep a state.
struct Router {
    directory: tempfile::TempDir,
}

impl Router {
    fn new() -> Self {
        let router = Self { directory: tempfile::tempdir().unwrap() };
        std::fs::create_dir(router.path("init.d")).unwrap();
        router.script("ifup", &router.interface_body("ifup", true));
        router.script("ifdown", &router.interface_body("ifdown", false));
        router.script("ifstatus", &format!("cat {}", router.path("state.json").display()));
        router.interface(true);
        router
    }

    fn interface_body(&self, name: &str, up: bool) -> String {
        let (calls, state) = (self.path("calls"), self.path("state.json"));
        format!(
            "echo {name} $1 >> {}\necho '{{\"up\": {up}}}' > {}",
            calls.display(),
            state.display()
        )
    }

    fn interface(&self, up: bool) {
        std::fs::write(self.path("state.json"), format!("{{\"up\": {up}}}")).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn script(&self, name: &str, body: &str) {
        crate::testing::script(&self.path(name), body);
    }

    fn service(&self, name: &str, running: bool, on_call: &str) {
        let state = self.path(&format!("{name}.running"));
        if running {
            std::fs::write(&state, "").unwrap();
        }
        let (state, calls) = (state.display(), self.path("calls"));
        let body = format!(
            "[ $1 = running ] && {{ test -e {state}; exit; }}
             echo {name} $1 >> {}
             {on_call}
             [ $1 = stop ] && rm -f {state} || touch {state}",
            calls.display()
        );
        self.script(&format!("init.d/{name}"), &body);
    }

    fn holders(&self) -> Holders {
        let programs = Programs {
            services: self.path("init.d"),
            ifup: self.path("ifup"),
            ifdown: self.path("ifdown"),
            ifstatus: self.path("ifstatus"),
            ubus: self.path("ubus"),
            mmcli: self.path("mmcli"),
            timeout_ms: 10_000,
        };
        Holders::new(self.directory.path(), programs)
    }

    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

fn both() -> Vec<Holder> {
    vec![Holder::Interface("wwan".into()), Holder::Service("modemmanager".into())]
}

#[tokio::test]
async fn given_back_in_reverse_and_only_once() {
    let router = Router::new();
    router.service("modemmanager", true, "");
    router.holders().take(&both()).await.unwrap();
    router.holders().take(&both()).await.unwrap();
    // A fresh process, which knows nothing but the record.
    assert_eq!(router.holders().taken().unwrap(), both());
    router.holders().give_back().await.unwrap();
    router.holders().give_back().await.unwrap();
    assert_eq!(
        router.calls(),
        ["ifdown wwan", "modemmanager stop", "modemmanager start", "ifup wwan"]
    );
    assert!(!router.path("holders.json").exists());
}

#[tokio::test]
async fn what_did_not_run_is_neither_stopped_nor_started() {
    let router = Router::new();
    router.interface(false);
    router.service("modemmanager", false, "");
    let mut holders = both();
    holders.push(Holder::Service("not-installed".into()));
    router.holders().take(&holders).await.unwrap();
    router.holders().give_back().await.unwrap();
    assert_eq!(router.calls(), [""; 0]);
}

#[tokio::test]
async fn a_script_that_does_not_tell_whether_it_runs_is_asked_whether_it_starts_at_boot() {
    let router = Router::new();
    let (calls, enabled) = (router.path("calls"), router.path("enabled"));
    let body = format!(
        "case $1 in
             enabled) test -e {} ;;
             start | stop) echo old $1 >> {} ;;
             *) echo 'Syntax: old [command]' ;;
         esac",
        enabled.display(),
        calls.display()
    );
    router.script("init.d/old", &body);
    let old = [Holder::Service("old".into())];
    router.holders().take(&old).await.unwrap();
    router.holders().give_back().await.unwrap();
    assert_eq!(router.calls(), [""; 0], "its owner had disabled it");
    std::fs::write(&enabled, "").unwrap();
    router.holders().take(&old).await.unwrap();
    router.holders().give_back().await.unwrap();
    assert_eq!(router.calls(), ["old stop", "old start"]);
}

#[tokio::test]
async fn procd_is_asked_first_whether_a_service_runs() {
    let router = Router::new();
    let (calls, says) = (router.path("calls"), router.path("says"));
    let (calls, says) = (calls.display(), says.display());
    router.script(
        "ubus",
        &format!("[ \"$2 $3 $4\" = 'service list {{\"name\":\"watchcat\"}}' ] && cat {says}"),
    );
    // A script that says of all it is asked that it failed, as one does that gets no lock; and one of 19.07.
    for running in ["exit 1", "exit 0"] {
        let body = format!(
            "USE_PROCD=1
             [ $1 = running ] && {running}
             echo watchcat $1 >> {calls}"
        );
        router.script("init.d/watchcat", &body);
        for (says, is_taken) in [
            (r#"{"watchcat":{"instances":{"a":{"running":true,"pid":7}}}}"#, true),
            (r#"{"watchcat":{"instances":{"a":{"running":false},"b":{"running":true}}}}"#, true),
            (r#"{"watchcat":{"instances":{"a":{"running":false,"respawn":{"retry":5}}}}}"#, true),
            (r#"{"watchcat":{"instances":{"a":{"running":false,"exit_code":0}}}}"#, false),
            (r#"{"watchcat":{}}"#, false),
            ("{}", false),
        ] {
            std::fs::write(router.path("says"), says).unwrap();
            let _ = std::fs::remove_file(router.path("calls"));
            router.holders().take(&[Holder::Service("watchcat".into())]).await.unwrap();
            router.holders().give_back().await.unwrap();
            let expected: &[&str] =
                if is_taken { &["watchcat stop", "watchcat start"] } else { &[] };
            assert_eq!(router.calls(), expected, "{running}: {says}");
        }
    }
}

#[tokio::test]
async fn a_script_that_procd_knows_nothing_of_is_asked_itself() {
    let router = Router::new();
    router.script("ubus", "[ \"$2\" = service ] && echo '{}'");
    router.service("gpsd", true, "");
    router.holders().take(&[Holder::Service("gpsd".into())]).await.unwrap();
    assert_eq!(router.calls(), ["gpsd stop"]);
}

#[tokio::test]
async fn a_crash_while_taking_still_gives_back() {
    let router = Router::new();
    router.service("modemmanager", true, "[ $1 = stop ] && exit 7");
    let error = router.holders().take(&both()).await.unwrap_err();
    assert!(matches!(error, HolderError::Failed { action: "stop", .. }), "{error}");
    router.holders().give_back().await.unwrap();
    let calls = router.calls();
    assert_eq!(calls[2..], ["modemmanager start", "ifup wwan"]);
}

#[tokio::test]
async fn one_that_fails_does_not_keep_the_others_down() {
    let router = Router::new();
    router.service("modemmanager", true, "[ $1 = start ] && exit 1");
    router.holders().take(&both()).await.unwrap();
    assert!(router.holders().give_back().await.is_err());
    assert_eq!(router.calls().last().unwrap(), "ifup wwan");
    assert_eq!(router.holders().taken().unwrap(), [Holder::Service("modemmanager".into())]);
    router.service("modemmanager", true, "");
    router.holders().give_back().await.unwrap();
    assert!(!router.path("holders.json").exists());
}

#[tokio::test]
async fn a_full_disk_keeps_nobody_down() {
    let router = Router::new();
    router.service("modemmanager", true, "");
    router.holders().take(&both()).await.unwrap();
    // Nothing can be written, and what is there can be removed.
    std::fs::create_dir(router.path("holders.json.tmp")).unwrap();
    router.holders().give_back().await.unwrap();
    assert_eq!(router.calls()[2..], ["modemmanager start", "ifup wwan"]);
    assert!(!router.path("holders.json").exists());
}

#[tokio::test]
async fn one_at_a_time_takes_or_gives_back() {
    let router = Router::new();
    // As slow as a service that ends its children first.
    router.service(
        "modemmanager",
        true,
        &format!(
            "[ $1 = stop ] && {{ sleep 0.5; echo stopped >> {}; }}",
            router.path("calls").display()
        ),
    );
    let taker = router.holders();
    let take = tokio::spawn(async move { taker.take(&both()[1..]).await });
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while router.calls().is_empty() {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    router.holders().give_back().await.unwrap();
    take.await.unwrap().unwrap();
    assert_eq!(router.calls(), ["modemmanager stop", "stopped", "modemmanager start"]);
    assert!(!router.path("holders.json").exists());
}

#[tokio::test]
async fn who_waits_in_vain_touches_nothing() {
    let router = Router::new();
    let _other = files::try_lock(&router.path("holders.lock")).unwrap().unwrap();
    let mut holders = router.holders();
    holders.programs.timeout_ms = 50;
    assert!(matches!(holders.take(&both()).await, Err(HolderError::Busy)));
    assert!(matches!(holders.give_back().await, Err(HolderError::Busy)));
    assert_eq!(router.calls(), [""; 0]);
}

#[tokio::test]
async fn a_script_that_hangs_is_given_up() {
    let router = Router::new();
    router.service("modemmanager", true, "exec sleep 600");
    let mut holders = router.holders();
    holders.programs.timeout_ms = 100;
    let error = holders.take(&both()[1..]).await.unwrap_err();
    assert!(matches!(error, HolderError::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn names_are_names() {
    let router = Router::new();
    for name in ["../evil", "-x", "", "a b", "a;reboot"] {
        let holder = Holder::Service(name.into());
        assert!(matches!(router.holders().take(&[holder]).await, Err(HolderError::Name(_))));
    }
    assert_eq!(router.calls(), [""; 0]);
}

#[tokio::test]
async fn interfaces_go_down_and_up_over_ubus_where_there_is_one() {
    let router = Router::new();
    let (calls, state) = (router.path("calls"), router.path("state.json"));
    let body = format!(
        "[ $2 = service ] && exit 4
         [ $3 = status ] && exec cat {state}
         echo \"ubus $*\" >> {calls}
         [ $3 = up ] && up=true || up=false
         echo \"{{\\\"up\\\": $up}}\" > {state}",
        state = state.display(),
        calls = calls.display()
    );
    router.script("ubus", &body);
    router.service("modemmanager", true, "");
    router.holders().take(&both()).await.unwrap();
    // Down by now: nothing is taken twice.
    router.holders().take(&both()).await.unwrap();
    router.holders().give_back().await.unwrap();
    assert_eq!(
        router.calls(),
        [
            "ubus call network.interface.wwan down",
            "modemmanager stop",
            "modemmanager start",
            "ubus call network.interface.wwan up"
        ]
    );
}

#[tokio::test]
async fn interfaces_are_found_by_the_modems_devices() {
    let router = Router::new();
    let devices = ["wwan0".to_owned()];
    assert_eq!(router.holders().interfaces_on(&devices).await, []);
    let dump = r#"{"interface": [
        {"interface": "lan", "up": true, "device": "br-lan", "l3_device": "br-lan"},
        {"interface": "wwan", "up": false, "autostart": true, "device": "wwan0"},
        {"interface": "alias", "up": true, "dynamic": false, "device": "@wwan", "l3_device": "wwan0"},
        {"interface": "wwan_4", "up": true, "autostart": true, "dynamic": true, "l3_device": "wwan0"},
        {"interface": "off", "up": false, "autostart": false, "device": "wwan0"},
        {"interface": "-x", "up": true, "device": "wwan0"}]}"#;
    std::fs::write(router.path("dump.json"), dump).unwrap();
    let dump = router.path("dump.json");
    router.script(
        "ubus",
        &format!("[ \"$*\" = 'call network.interface dump' ] && cat {}", dump.display()),
    );
    let interface = |name: &str| Holder::Interface(name.into());
    let found = router.holders().interfaces_on(&devices).await;
    assert_eq!(found, [interface("wwan"), interface("alias")]);
}

/// What netifd knows, one file each; what is dynamic goes when it goes down.
fn netifd(router: &Router, interfaces: &[(&str, &str)]) {
    let known = router.path("netifd");
    std::fs::create_dir(&known).unwrap();
    for (name, json) in interfaces {
        std::fs::write(known.join(format!("network.interface.{name}")), json).unwrap();
    }
    let body = format!(
        "[ $2 = service ] && exit 4
         cd {known} || exit 4
         [ $2 = network.interface ] && exec echo '{{\"interface\": []}}'
         [ -e $2 ] || exit 4
         [ $3 = status ] && exec cat $2
         echo \"$2 $3\" >> {calls}",
        known = known.display(),
        calls = router.path("calls").display()
    );
    router.script("ubus", &body);
}

#[tokio::test]
async fn what_netifd_makes_and_removes_by_itself_is_not_taken() {
    let router = Router::new();
    let up = |dynamic: bool| format!(r#"{{"up": true, "autostart": true, "dynamic": {dynamic}}}"#);
    netifd(&router, &[("wwan", &up(false)), ("wwan_4", &up(true))]);
    let all = ["wwan", "wwan_4"].map(|name| Holder::Interface(name.into()));
    router.holders().take(&all).await.unwrap();
    assert_eq!(router.holders().taken().unwrap(), all[..1]);
    router.holders().give_back().await.unwrap();
    assert_eq!(router.calls(), ["network.interface.wwan down", "network.interface.wwan up"]);
}

#[tokio::test]
async fn an_interface_that_is_gone_is_nobodys_to_wait_for() {
    let router = Router::new();
    netifd(&router, &[("wwan", r#"{"up": false}"#)]);
    let all = ["wwan", "wwan_4"].map(|name| Holder::Interface(name.into()));
    router.holders().note(&all).unwrap();
    router.holders().give_back().await.unwrap();
    assert_eq!(router.calls(), ["network.interface.wwan up"]);
    assert_eq!(router.holders().taken().unwrap(), []);
    // Without netifd nobody knows what is gone.
    std::fs::rename(router.path("netifd"), router.path("away")).unwrap();
    router.holders().note(&all[..1]).unwrap();
    assert!(router.holders().give_back().await.is_err());
    assert_eq!(router.holders().taken().unwrap(), all[..1]);
}

/// As mmcli behaves: it stays, and says so when the modem is free.
fn inhibitor(router: &Router, uid: &str) {
    let (calls, pid) = (router.path("calls"), router.path("mmcli.pid"));
    let body = format!(
        "[ \"$*\" = '--inhibit-device={uid}' ] || exit 1
         echo inhibit >> {calls}
         trap 'echo released >> {calls}; exit 0' TERM
         echo $$ > {pid}
         echo \"successfully inhibited device with uid '{uid}'\"
         while :; do sleep 0.05; done",
        calls = calls.display(),
        pid = pid.display()
    );
    router.script("mmcli", &body);
}

const UID: &str = "/sys/devices/platform/soc/11200000.usb/usb2/2-1";

#[tokio::test]
async fn an_inhibition_lasts_until_it_is_given_back_whoever_began_it() {
    let router = Router::new();
    inhibitor(&router, UID);
    let held = [Holder::Modem(UID.into())];
    router.holders().take(&held).await.unwrap();
    router.holders().take(&held).await.unwrap();
    let pid = std::fs::read_to_string(router.path("mmcli.pid")).unwrap();
    assert!(Path::new("/proc").join(pid.trim()).exists());
    // A fresh process, which knows nothing but the run directory.
    router.holders().give_back().await.unwrap();
    assert_eq!(router.calls(), ["inhibit", "released"]);
    assert!(!files::is_locked(&router.path("inhibition.lock")).unwrap());
    assert_eq!(router.holders().taken().unwrap(), []);
}

#[tokio::test]
async fn an_inhibition_that_is_refused_is_an_error_and_leaves_nothing() {
    let router = Router::new();
    inhibitor(&router, "/another");
    let error = router.holders().take(&[Holder::Modem(UID.into())]).await.unwrap_err();
    assert!(matches!(error, HolderError::Run { action: "stop", .. }), "{error}");
    router.holders().give_back().await.unwrap();
    assert!(!files::is_locked(&router.path("inhibition.lock")).unwrap());
    let odd = Holder::Modem("a b".into());
    assert!(matches!(router.holders().take(&[odd]).await, Err(HolderError::Name(_))));
}

#[tokio::test]
async fn an_inhibition_that_was_killed_is_begun_again() {
    let router = Router::new();
    inhibitor(&router, UID);
    let held = [Holder::Modem(UID.into())];
    router.holders().take(&held).await.unwrap();
    let pid = std::fs::read_to_string(router.path("mmcli.pid")).unwrap();
    let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while files::is_locked(&router.path("inhibition.lock")).unwrap() {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    router.holders().take(&held).await.unwrap();
    router.holders().give_back().await.unwrap();
    assert_eq!(router.calls(), ["inhibit", "inhibit", "released"]);
}

#[tokio::test]
async fn a_crash_in_the_middle_gives_back_all_that_was_taken_in_reverse() {
    let router = Router::new();
    router.service("watchcat", true, "");
    // The process dies with the modem inhibited and a service half stopped.
    router.service("gpsd", true, "[ $1 = stop ] && exit 1");
    inhibitor(&router, UID);
    let all = [
        Holder::Service("watchcat".into()),
        Holder::Interface("wwan".into()),
        Holder::Modem(UID.into()),
        Holder::Service("gpsd".into()),
        Holder::Service("never-reached".into()),
    ];
    router.service("never-reached", true, "");
    assert!(router.holders().take(&all).await.is_err());
    assert_eq!(router.holders().taken().unwrap(), all[..4]);
    // A fresh process takes again what it finds, and gives back everything once.
    router.holders().take(&all[..3]).await.unwrap();
    router.service("gpsd", true, "");
    router.holders().give_back().await.unwrap();
    assert_eq!(
        router.calls(),
        [
            "watchcat stop",
            "ifdown wwan",
            "inhibit",
            "gpsd stop",
            "gpsd start",
            "released",
            "ifup wwan",
            "watchcat start"
        ]
    );
    assert!(!router.path("holders.json").exists());
}
