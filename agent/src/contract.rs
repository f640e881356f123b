//! What a pod's environment says to its agent. Pure.
//!
//! Everything of ours begins with [`PREFIX`]; the rest is the server's, and only the rest. The token is a secret: it is
//! in no error and in no `Debug`.

use std::{
    ffi::OsString,
    net::{IpAddr, SocketAddr},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// What our variables begin with.
const PREFIX: &str = "MCP_GATEWAY_AGENT_";
/// More addresses of one home make no sense.
const MAX_HOMES: usize = 64;

/// How the agent came into the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// It is the entry point of the server's own image.
    Embedded,
    /// It runs beside the server's container and only watches.
    Sidecar,
    /// It was mounted from an image.
    ImageVolume,
    /// It was copied by a container that lends it.
    Init,
}

/// The contract. Its `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Contract {
    /// Where home may be, in the order to try.
    pub(crate) homes: Vec<SocketAddr>,
    /// The certificate that home's must be signed with, as PEM.
    pub(crate) ca_pem: String,
    /// Proves the pod's identity, once.
    pub(crate) token: Vec<u8>,
    /// The pod's name.
    pub(crate) pod: String,
    /// The pod's UID.
    pub(crate) uid: String,
    /// The address others reach the pod at.
    pub(crate) ip: IpAddr,
    /// How we came here.
    pub(crate) form: Form,
}

impl std::fmt::Debug for Contract {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contract")
            .field("homes", &self.homes)
            .field("pod", &self.pod)
            .field("ip", &self.ip)
            .field("form", &self.form)
            .finish_non_exhaustive()
    }
}

/// Why the environment is none that an agent can work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    /// A variable is not there.
    #[error(
        "{PREFIX}{0} is not set: this program is started by mcp-gateway, in pods that it creates"
    )]
    Missing(&'static str),
    /// A variable cannot be read.
    #[error("{PREFIX}{0} must be {1}")]
    Malformed(&'static str, &'static str),
}

/// Splits the environment: our contract, and what the server gets.
pub(crate) fn read(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> (Result<Contract, Unfit>, Vec<(OsString, OsString)>) {
    let (ours, theirs): (Vec<_>, Vec<_>) = environment
        .into_iter()
        .partition(|(name, _)| name.to_str().is_some_and(|name| name.starts_with(PREFIX)));
    (contract(&ours), theirs)
}

fn contract(ours: &[(OsString, OsString)]) -> Result<Contract, Unfit> {
    let get = |wanted: &'static str| {
        let found = ours.iter().find(|(name, _)| {
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)) == Some(wanted)
        });
        let text = found.and_then(|(_, value)| value.to_str());
        text.filter(|text| !text.is_empty())
            .ok_or(Unfit::Missing(wanted))
    };
    let homes: Option<Vec<SocketAddr>> = get("HOME")?
        .split(',')
        .map(|home| home.trim().parse().ok())
        .collect();
    let homes = homes
        .filter(|homes| homes.len() <= MAX_HOMES)
        .ok_or(Unfit::Malformed(
            "HOME",
            "ip:port, several separated by commas",
        ))?;
    let form = match get("FORM")? {
        "embedded" => Form::Embedded,
        "sidecar" => Form::Sidecar,
        "imageVolume" => Form::ImageVolume,
        "init" => Form::Init,
        _ => {
            return Err(Unfit::Malformed(
                "FORM",
                "embedded, sidecar, imageVolume or init",
            ));
        }
    };
    Ok(Contract {
        homes,
        ca_pem: get("CA")?.to_owned(),
        token: URL_SAFE_NO_PAD
            .decode(get("TOKEN")?)
            .map_err(|_secret| Unfit::Malformed("TOKEN", "base64url without padding"))?,
        pod: get("POD")?.to_owned(),
        uid: get("UID")?.to_owned(),
        ip: get("IP")?
            .parse()
            .map_err(|_not_one| Unfit::Malformed("IP", "the pod's IP address"))?,
        form,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn environment() -> Vec<(OsString, OsString)> {
        [
            ("PATH", "/bin"),
            ("MCP_GATEWAY_AGENT_HOME", "198.18.0.10:9091, [fd00::1]:9091"),
            ("MCP_GATEWAY_AGENT_CA", "-----BEGIN CERTIFICATE-----"),
            ("MCP_GATEWAY_AGENT_TOKEN", "c2VjcmV0"),
            ("MCP_GATEWAY_AGENT_POD", "mcp-a"),
            ("MCP_GATEWAY_AGENT_UID", "u-1"),
            ("MCP_GATEWAY_AGENT_IP", "198.18.1.7"),
            ("MCP_GATEWAY_AGENT_FORM", "imageVolume"),
            ("MCP_GATEWAY_AGENT_FROM_LATER", "x"),
        ]
        .map(|(name, value)| (name.into(), value.into()))
        .into()
    }

    #[test]
    fn the_contract_is_read_and_nothing_of_it_is_left_for_the_server() {
        let (contract, theirs) = read(environment());
        let contract = contract.unwrap();
        assert_eq!(contract.homes.len(), 2);
        assert_eq!(contract.token, b"secret");
        assert_eq!(contract.form, Form::ImageVolume);
        assert_eq!(theirs, [("PATH".into(), "/bin".into())]);
        assert!(!format!("{contract:?}").contains("secret"));
    }

    #[test]
    fn what_is_missing_or_malformed_is_named() {
        for name in ["HOME", "CA", "TOKEN", "POD", "UID", "IP", "FORM"] {
            let full = format!("{PREFIX}{name}");
            let mut missing = environment();
            missing.retain(|(key, _)| *key != *full);
            assert_eq!(read(missing).0.unwrap_err(), Unfit::Missing(name));
        }
        for (name, value) in [
            ("HOME", "home:1"),
            ("TOKEN", "?"),
            ("IP", "x"),
            ("FORM", "none"),
        ] {
            let full = format!("{PREFIX}{name}");
            let mut wrong = environment();
            wrong
                .iter_mut()
                .filter(|(key, _)| *key == *full)
                .for_each(|(_, old)| *old = value.into());
            let error = read(wrong).0.unwrap_err();
            assert!(
                matches!(error, Unfit::Malformed(said, _) if said == name),
                "{error}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_value_makes_the_reader_panic(value in "\\PC*") {
            for at in 1..8 {
                let mut wild = environment();
                wild[at].1 = value.clone().into();
                let _ = read(wild);
            }
        }
    }
}
