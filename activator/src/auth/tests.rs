use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use axum::http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use mcp_gateway_api::{failure::FailureKind, ids::TenantName};
use proptest::prelude::*;

use super::{Anonymous, Authenticate, KeyFile, KeyFileError, StaticKeys};

fn headers(values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn one_key() -> (KeyFile, String) {
    let mut file = KeyFile::default();
    let key = file
        .add(TenantName::new("engineering").unwrap(), "alice", 1)
        .unwrap();
    (file, key.text.to_string())
}

#[test]
fn a_right_key_names_its_tenant_and_subject_again_and_again() {
    let (file, key) = one_key();
    let keys = StaticKeys::new(&file);
    for _ in 0..3 {
        let who = keys
            .authenticate(&headers(&[&format!("bEaReR {key}")]))
            .unwrap();
        assert_eq!(who.tenant.as_str(), "engineering");
        assert_eq!(&*who.subject, "alice");
    }
}

#[test]
fn wrong_missing_doubled_and_foreign_credentials_are_unauthenticated() {
    let (file, key) = one_key();
    let keys = StaticKeys::new(&file);
    let good = format!("Bearer {key}");
    for bad in [
        vec![],
        vec!["Bearer mgk_wrong"],
        vec!["Bearer "],
        vec!["Bearer"],
        vec!["Basic YTpi"],
        vec![key.as_str()],
        vec![good.as_str(), good.as_str()],
    ] {
        let failure = keys.authenticate(&headers(&bad)).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unauthenticated, "{bad:?}");
        assert!(!failure.public.contains(&key));
    }
}

#[test]
fn a_removed_key_stops_working_although_its_verdict_was_cached() {
    let (mut file, key) = one_key();
    let keys = StaticKeys::new(&file);
    let with_key = headers(&[&format!("Bearer {key}")]);
    keys.authenticate(&with_key).unwrap();
    let id = file.keys[0].id.clone();
    file.remove(&id).unwrap();
    keys.replace(&file);
    keys.authenticate(&with_key).unwrap_err();
}

#[test]
fn without_keys_everybody_is_the_anonymous_principal() {
    let who = Anonymous::default()
        .authenticate(&headers(&["Bearer whatever"]))
        .unwrap();
    assert_eq!(&*who.issuer, "anonymous");
}

#[test]
fn the_file_holds_no_key_is_private_and_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.json");
    let tenant = TenantName::new("engineering").unwrap();
    let key = KeyFile::update(&path, |file| file.add(tenant.clone(), "alice", 7)).unwrap();
    let other = KeyFile::update(&path, |file| file.add(tenant.clone(), "bob", 8)).unwrap();
    assert!(key.text.starts_with("mgk_") && key.text.len() >= 36);
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains(key.text.trim_start_matches("mgk_")));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let file = KeyFile::load(&path).unwrap();
    assert_eq!(file.keys, [key.entry, other.entry]);
}

#[test]
fn a_file_that_others_may_write_to_is_refused_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.json");
    fs::write(&path, r#"{"keys":[]}"#).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
    let error = KeyFile::load(&path).unwrap_err();
    assert!(error.to_string().contains("chmod 600"), "{error}");
}

#[test]
fn a_malformed_file_names_file_line_and_remedy() {
    let error = KeyFile::parse(Path::new("k.json"), b"{\n  \"kes\": []\n}").unwrap_err();
    let text = error.to_string();
    for part in ["k.json", "line 2", "kes", "keys add"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn an_unknown_id_and_a_strange_subject_are_refused() {
    let (mut file, _) = one_key();
    assert!(matches!(
        file.remove("nope"),
        Err(KeyFileError::NoSuchKey { .. })
    ));
    for subject in ["", "a\nb", &"x".repeat(257)] {
        assert!(file.add(TenantName::default(), subject, 0).is_err());
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = KeyFile::parse(Path::new("k"), &bytes);
    }

    #[test]
    fn no_header_makes_authentication_panic(value in "[ -~]{0,60}") {
        let (file, _) = one_key();
        prop_assert!(StaticKeys::new(&file).authenticate(&headers(&[&value])).is_err());
    }
}
