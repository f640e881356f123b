//! The demo server, spoken to over real sockets.

use super::address;

#[test]
fn the_address_is_loopback_unless_the_environment_says_otherwise() {
    let loopback = [127, 0, 0, 1].into();
    assert_eq!(address(None, None).unwrap(), (loopback, 8000));
    assert_eq!(address(Some(""), Some("")).unwrap(), (loopback, 8000));
    assert_eq!(
        address(Some("localhost"), Some("0")).unwrap(),
        (loopback, 0)
    );
    assert_eq!(
        address(Some("::1"), Some("9")).unwrap(),
        ("::1".parse().unwrap(), 9)
    );
}

#[test]
fn an_address_that_is_none_is_named() {
    let host = address(Some("nowhere"), None).unwrap_err();
    assert!(host.to_string().contains("HOST=nowhere"), "{host}");
    let port = address(None, Some("70000")).unwrap_err();
    assert!(port.to_string().contains("PORT=70000"), "{port}");
}
