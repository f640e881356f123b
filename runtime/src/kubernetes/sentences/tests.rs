use super::*;
use crate::kubernetes::pods::tests::seen;

fn said(reason: &str, message: &str) -> Said {
    Said {
        reason: reason.into(),
        message: message.into(),
    }
}

fn waits(reason: &str, message: &str) -> Trouble {
    let mut seen = seen();
    seen.server = Container::Waiting(said(reason, message));
    trouble(&seen).expect("a trouble")
}

fn container(code: i32, reason: &str, message: &str) -> ExitReport {
    let mut seen = seen();
    seen.server = Container::Ended(Ended {
        code,
        signal: None,
        said: said(reason, message),
        ran: true,
    });
    ended(&seen).expect("an end")
}

/// What Kubernetes really said, from the test cluster, and the sentence for people.
#[test]
fn each_way_of_not_starting_has_its_sentence() {
    for (reason, message, fatal, words) in [
        (
            "ErrImagePull",
            "failed to pull registry.invalid/x",
            false,
            "could not be pulled",
        ),
        (
            "ImagePullBackOff",
            "Back-off pulling image \"registry.invalid/x\"",
            true,
            "does not exist",
        ),
        (
            "ErrImageNeverPull",
            "Container image \"x\" is not present",
            true,
            "imagePullPolicy Never",
        ),
        (
            "InvalidImageName",
            "couldn't parse image name",
            true,
            "not a valid one",
        ),
        (
            "CreateContainerConfigError",
            "secret \"github\" not found",
            true,
            "does not exist",
        ),
        (
            "CreateContainerConfigError",
            "couldn't find key token in Secret mcp/github",
            true,
            "key is missing",
        ),
        (
            "CreateContainerConfigError",
            "container has runAsNonRoot and image will run as root",
            true,
            "root",
        ),
        (
            "RunContainerError",
            "exec: \"nope\": executable file not found in $PATH: unknown",
            true,
            "command does not exist",
        ),
    ] {
        let trouble = waits(reason, message);
        assert_eq!(trouble.fatal, fatal, "{reason}");
        assert!(
            trouble.public.contains(words),
            "{reason}: {}",
            trouble.public
        );
        assert!(
            !trouble.public.contains("registry.invalid"),
            "{}",
            trouble.public
        );
        assert!(trouble.private.contains(message), "{}", trouble.private);
    }
    let mut starting = seen();
    starting.server = Container::Waiting(said("ContainerCreating", ""));
    assert_eq!(trouble(&starting), None);
}

#[test]
fn what_a_busy_node_complains_of_is_waited_for() {
    let late = "failed to sync secret cache: timed out waiting for the condition";
    let trouble = waits("CreateContainerConfigError", late);
    assert!(!trouble.fatal && trouble.public.contains("not got the Secrets"));
    let trouble = waits("CreateContainerError", "context deadline exceeded");
    assert!(!trouble.fatal && trouble.public.contains("too busy"));
    assert!(waits("CreateContainerError", "no space left on device").fatal);
}

#[test]
fn each_end_has_its_sentence() {
    let report = container(3, "Error", "");
    assert_eq!(
        (report.code, report.summary.as_str()),
        (Some(3), "it exited with code 3")
    );
    let report = container(137, "OOMKilled", "");
    assert_eq!(report.signal, Some(9));
    assert!(report.summary.contains("more memory than its limit"));
    let report = container(143, "Error", "");
    assert_eq!((report.code, report.signal), (None, Some(15)));
    let report = container(
        128,
        "StartError",
        "exec: \"nope\": executable file not found in $PATH",
    );
    assert!(report.summary.contains("command does not exist"));
    let mut evicted = seen();
    evicted.over = true;
    evicted.said = said("Evicted", "The node was low on resource: memory.");
    let report = ended(&evicted).expect("an end");
    assert!(
        report.summary.contains("evicted") && report.stderr_tail[0].contains("low on resource")
    );
    let mut lost = seen();
    lost.server = Container::Running;
    lost.said = said("NodeLost", "");
    assert!(ended(&lost).expect("an end").summary.contains("lost"));
}

#[test]
fn an_agent_that_ended_has_its_sentence_which_is_not_its_servers() {
    let end = |code: i32, reason: &str, message: &str| {
        let mut seen = seen();
        seen.server = Container::Running;
        seen.agent = Container::Ended(Ended {
            code,
            signal: None,
            said: said(reason, message),
            ran: true,
        });
        assert_eq!(ended(&seen), None);
        agent_ended(&seen).expect("an end")
    };
    let report = end(0, "Completed", "");
    assert_eq!(
        report.summary,
        "its agent ended before its server served: it exited with code 0"
    );
    let report = end(137, "OOMKilled", "memory of 64Mi");
    assert!(
        report
            .summary
            .ends_with("memory than its limit and was killed")
    );
    assert_eq!((report.code, report.signal), (None, None));
    assert!(report.stderr_tail[0].contains("64Mi"));
    assert_eq!(agent_ended(&seen()), None);
}

#[test]
fn a_server_that_could_not_begin_for_want_of_the_agent_is_not_blamed_for_it() {
    let of = |code: i32, reason: &str, ran: bool| {
        Container::Ended(Ended {
            code,
            signal: None,
            said: said(reason, "no such file or directory"),
            ran,
        })
    };
    let end = |lender: Container, server: Container| {
        let both = Seen {
            lender,
            server,
            ..seen()
        };
        ended(&both).expect("an end").summary
    };
    let missing = of(128, "StartError", false);
    let put = "agent could not be put into its pod";
    // It failed; its hook did, so that it was told to end; it lives, and the file is gone all the same.
    for lender in [
        of(1, "Error", true),
        of(0, "Completed", true),
        Container::Running,
    ] {
        assert!(end(lender, missing.clone()).contains(put));
    }
    let pulled = Container::Waiting(said("ErrImagePull", "registry.invalid"));
    assert!(end(pulled, missing.clone()).contains("could not be pulled"));
    assert!(end(Container::Absent, missing).contains("command does not exist"));
    // One that has run is its own.
    assert!(end(of(137, "Error", true), of(3, "Error", true)).contains("exited with code 3"));
}

#[test]
fn each_refusal_has_its_sentence_and_names_the_verb() {
    let api = |code: u16, message: &str| {
        let status = kube::core::Status {
            code,
            message: message.into(),
            ..kube::core::Status::default()
        };
        kube::Error::Api(Box::new(status))
    };
    for (code, message, words) in [
        (
            403,
            "pods \"x\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1",
            "quota",
        ),
        (
            403,
            "pods is forbidden: User \"system:serviceaccount:a:b\" cannot create resource \"pods\" in API group \"\" in \
             the namespace \"mcp\"",
            "may not create pods",
        ),
        (
            404,
            "namespaces \"mcp\" not found",
            "namespace for its pod does not exist",
        ),
        (
            403,
            "violates PodSecurity \"restricted:latest\"",
            "pod security",
        ),
        (
            403,
            "unable to create new content in namespace mcp because it is being terminated",
            "being deleted",
        ),
        (
            400,
            "admission webhook \"x\" denied the request: no",
            "admission",
        ),
        (
            422,
            "Pod \"x\" is invalid: spec.containers[0].resources",
            "field",
        ),
    ] {
        let report = refused(&api(code, message), "create pods", "mcp");
        assert!(
            report.summary.contains(words),
            "{message}: {}",
            report.summary
        );
        assert!(!report.summary.contains("system:"), "{}", report.summary);
        assert!(
            report.stderr_tail[0].contains(message),
            "{:?}",
            report.stderr_tail
        );
    }
}
