use clap::Parser;

use super::{ActivatorSettings, AutoscalerSettings};
use crate::{
    cli::{Cli, Command, ScalerAddress},
    config::{Access, ConfigError},
};

fn command(line: &str) -> Command {
    let words = std::iter::once("mcp-gateway").chain(line.split_whitespace());
    Cli::try_parse_from(words).unwrap().command
}

fn activator(line: &str) -> Result<ActivatorSettings, ConfigError> {
    let line = format!("activator --secrets /s --scaler scaler:7444 {line}");
    let Command::Activator(args) = command(&line) else {
        panic!("no activator: {line}");
    };
    ActivatorSettings::load(&args, true)
}

fn autoscaler(line: &str) -> Result<AutoscalerSettings, ConfigError> {
    let line = format!("autoscaler --secrets /s {line}");
    let Command::Autoscaler(args) = command(&line) else {
        panic!("no autoscaler: {line}");
    };
    AutoscalerSettings::load(&args, true)
}

#[test]
fn an_activator_asks_who_is_there_unless_only_this_machine_reaches_it() {
    assert_eq!(activator("").unwrap().access, Access::Anonymous);
    let open = activator("--listen 0.0.0.0:8080").unwrap_err().to_string();
    assert!(open.contains("--allow-anonymous"), "{open}");
    let keys = activator("--listen 0.0.0.0:8080 --keys /k.json").unwrap();
    assert_eq!(keys.access, Access::Keys("/k.json".into()));
    assert_eq!(keys.namespace, "mcp");
}

#[test]
fn autoscalers_are_named_by_address_or_by_name() {
    let both = activator("--scaler 10.0.0.1:7444").unwrap().scaler;
    assert_eq!(
        both,
        [
            ScalerAddress::Name("scaler:7444".into()),
            ScalerAddress::Address("10.0.0.1:7444".parse().unwrap()),
        ]
    );
    for wrong in ["scaler", "scaler:http", ":7444", "a b:1", "http://scaler:1"] {
        let line = [
            "mcp-gateway",
            "activator",
            "--secrets",
            "/s",
            "--scaler",
            wrong,
        ];
        let error = Cli::try_parse_from(line).unwrap_err().to_string();
        assert!(error.contains("with its port"), "{error}");
    }
}

#[test]
fn an_autoscaler_says_where_it_can_be_reached() {
    let error = autoscaler("--home-advertise 10.0.0.2:7443").unwrap_err();
    assert!(error.to_string().contains("--scaler-advertise"), "{error}");
    let error = autoscaler("--scaler-advertise 10.0.0.2:7444").unwrap_err();
    assert!(error.to_string().contains("--home-advertise"), "{error}");
    let error = autoscaler("--scaler-advertise 0.0.0.0:7444 --home-advertise 10.0.0.2:7443");
    let error = error.unwrap_err().to_string();
    assert!(error.contains("0.0.0.0:7444"), "{error}");
    let fine = autoscaler("--scaler-advertise 10.0.0.2:7444 --home-advertise 10.0.0.2:7443");
    let fine = fine.unwrap();
    assert_eq!(fine.scaler_listen.to_string(), "0.0.0.0:7444");
    assert_eq!(fine.system_namespace, "mcp-gateway-system");
    assert!(!fine.pods.may_make_secrets);
}

#[test]
fn a_uid_is_read_as_kubernetes_writes_it() {
    let uid = "0d9c5e1c-9a3b-4c5d-8e6f-001122334455";
    let settings = activator(&format!("--pod-uid {uid}")).unwrap();
    assert_eq!(
        settings.pod.unwrap().0,
        0x0d9c_5e1c_9a3b_4c5d_8e6f_0011_2233_4455
    );
    let addresses = "--scaler-advertise 10.0.0.2:7444 --home-advertise 10.0.0.2:7443";
    let known = autoscaler(&format!("{addresses} --activator {uid}")).unwrap();
    assert!(known.activators.contains(&settings.pod.unwrap()));
    assert_eq!(known.pod, None);
    let own = autoscaler(&format!("{addresses} --pod-uid {uid}")).unwrap();
    assert_eq!(own.pod, settings.pod);
    for wrong in ["pod-1", "0d9c5e1c", "+d9c5e1c-9a3b-4c5d-8e6f-001122334455"] {
        let error = activator(&format!("--pod-uid {wrong}"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("--pod-uid"), "{error}");
        let error = autoscaler(&format!("{addresses} --pod-uid {wrong}")).unwrap_err();
        assert!(error.to_string().contains("--pod-uid"), "{error}");
    }
}
