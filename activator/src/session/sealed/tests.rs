use proptest::prelude::*;

use super::*;

fn sealer() -> Sealer {
    Sealer::new(Keyring::from_keys(&[[7; 32]]).unwrap())
}

fn session(upstream: &str, body: &str) -> SealedSession {
    SealedSession {
        key: SessionKey([9; 24]),
        backend: BackendName::new("everything").unwrap(),
        generation: Generation(3),
        tenant: TenantName::default(),
        instance: InstanceId(42),
        upstream: UpstreamSession(upstream.into()),
        issued_at: 1_700_000_000,
        revision: "2025-11-25".into(),
        capabilities: 5,
        handshake: Handshake::of(body.as_bytes()),
    }
}

const ALICE: PrincipalId = PrincipalId([1; 16]);
const BOB: PrincipalId = PrincipalId([2; 16]);
const BODY: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25",
    "capabilities":{"sampling":{},"elicitation":{"form":{}},"roots":{"listChanged":true}},
    "clientInfo":{"name":"claude-code","version":"2.0.1"}}}"#;

fn client_with(member: &str, size: usize) -> String {
    let mut state = 1_u64;
    let text: String = (0..size)
        .map(|_| {
            // Noise, so that deflating does not help.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            char::from(b'a' + u8::try_from((state >> 33) % 26).unwrap())
        })
        .collect();
    format!(
        r#"{{"params":{{"protocolVersion":"2025-11-25","capabilities":{{}},"clientInfo":{{"name":"c","version":"1","{member}":"{text}"}}}}}}"#
    )
}

#[test]
fn what_was_sealed_opens_for_its_principal_only() {
    let sealed = session("0123-upstream", BODY);
    let id = sealer().seal(&sealed, ALICE).unwrap();
    assert!(id.len() < 600, "{}", id.len());
    assert!(id.bytes().all(|b| (0x21..=0x7e).contains(&b)));
    assert_eq!(sealer().open(&id, ALICE), Ok(sealed));
    assert_eq!(sealer().open(&id, BOB), Err(OpenError));
}

#[test]
fn an_old_key_still_opens_and_a_dropped_one_does_not() {
    let id = sealer().seal(&session("u", BODY), ALICE).unwrap();
    let rotated = Sealer::new(Keyring::from_keys(&[[8; 32], [7; 32]]).unwrap());
    assert!(rotated.open(&id, ALICE).is_ok());
    let dropped = Sealer::new(Keyring::from_keys(&[[8; 32]]).unwrap());
    assert_eq!(dropped.open(&id, ALICE), Err(OpenError));
}

#[test]
fn a_large_handshake_loses_what_is_for_show_first() {
    let id = sealer()
        .seal(&session("u", &client_with("description", 4_000)), ALICE)
        .unwrap();
    assert!(id.len() <= MAX_ID);
    let params = sealer()
        .open(&id, ALICE)
        .unwrap()
        .handshake
        .unwrap()
        .params()
        .unwrap();
    let params: serde_json::Value = serde_json::from_str(&params).unwrap();
    assert_eq!(
        params["clientInfo"],
        serde_json::json!({"name": "c", "version": "1"})
    );
}

#[test]
fn a_handshake_that_never_fits_is_left_out() {
    let huge = client_with("x", 10).replace(
        r#""c""#,
        &format!("\"{}\"", client_with("y", 4_000).replace('"', "'")),
    );
    let sealed = session("u", &huge);
    assert!(sealed.handshake.is_some());
    let id = sealer().seal(&sealed, ALICE).unwrap();
    assert_eq!(sealer().open(&id, ALICE).unwrap().handshake, None);
}

#[test]
fn a_server_id_that_never_fits_is_an_error() {
    assert_eq!(
        sealer().seal(&session(&"x".repeat(2_000), BODY), ALICE),
        Err(TooLong)
    );
}

#[test]
fn printing_a_sealer_or_a_session_shows_no_secret() {
    let text = format!("{:?} {:?}", sealer(), session("the-upstream-id", BODY));
    assert!(
        !text.contains("the-upstream-id") && !text.contains("claude"),
        "{text}"
    );
    assert!(text.contains("Keyring(1 keys)"));
}

#[test]
fn a_key_file_is_made_private_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sealing.keys");
    let made = Sealer::new(Keyring::load_or_create(&path).unwrap());
    let id = made.seal(&session("u", BODY), ALICE).unwrap();
    let read = Sealer::new(Keyring::load_or_create(&path).unwrap());
    assert!(read.open(&id, ALICE).is_ok());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    std::fs::write(&path, "# nothing\n").unwrap();
    assert!(Keyring::load_or_create(&path).is_err());
    std::fs::write(&path, "# a\n\nbm90IGEga2V5\n").unwrap();
    let error = Keyring::load_or_create(&path).unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 3 of the file of sealing keys is not 32 bytes in base64"
    );
}

proptest! {
    #[test]
    fn any_session_comes_back_as_it_was(
        upstream in "[!-~]{1,200}",
        key in any::<[u8; 24]>(),
        instance in any::<u128>(),
        issued_at in any::<u64>(),
        principal in any::<[u8; 16]>(),
    ) {
        let sealed = SealedSession {
            key: SessionKey(key),
            instance: InstanceId(instance),
            issued_at,
            ..session(&upstream, BODY)
        };
        let id = sealer().seal(&sealed, PrincipalId(principal)).unwrap();
        prop_assert!(id.len() <= MAX_ID);
        prop_assert_eq!(sealer().open(&id, PrincipalId(principal)), Ok(sealed));
    }

    #[test]
    fn a_changed_id_never_opens(at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<bool>()) {
        let id = sealer().seal(&session("u", BODY), ALICE).unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(&id).unwrap();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            prop_assume!(bytes[at] != with);
            bytes[at] = with;
        }
        prop_assert_eq!(sealer().open(&URL_SAFE_NO_PAD.encode(bytes), ALICE), Err(OpenError));
    }

    #[test]
    fn opening_never_panics(id in ".{0,200}") {
        prop_assert_eq!(sealer().open(&id, ALICE), Err(OpenError));
    }
}
