//! What isolab makes of a client that misbehaves, and of a name that is none.

use std::process::Command;

use super::*;
use crate::source::Progress;

fn request() -> Request {
    Request {
        reference: "localhost/a:1".into(),
        plain_http: false,
        login: None,
        download_bytes: 1,
        layers: 1,
        document_bytes: 1,
    }
}

/// What comes of a client that is this shell script.
fn from_client(script: &str) -> (Result<Result<Digest, Failure>, PullError>, Vec<Progress>) {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    let mut seen = Vec::new();
    let result = client::run(command, &request(), &mut |progress| seen.push(progress));
    (result, seen)
}

fn complaint(script: &str) -> String {
    from_client(script).0.expect_err(script).to_string()
}

#[test]
fn a_client_that_is_killed_is_told_with_its_signal() {
    let told = complaint("read line; kill -9 $$");
    assert!(told.starts_with("the registry client ended early: signal: 9"), "{told}");
    let (result, seen) = from_client(r#"echo '{"progress":{"done_bytes":9,"total_bytes":5}}'; kill -6 $$"#);
    assert!(result.expect_err("killed").to_string().contains("signal: 6"));
    assert_eq!(seen, [Progress { done_bytes: 5, total_bytes: Some(5) }]);
}

#[test]
fn a_client_that_ends_without_a_result_is_told_with_its_status() {
    assert_eq!(complaint("exit 3"), "the registry client ended early: exit status: 3");
}

#[test]
fn garbage_is_shown_escaped_and_cut() {
    let told = complaint(r"printf '\n\033[2Jpanicked\n' >&2");
    assert_eq!(told, r#"the registry client said what makes no sense: "\x1b[2Jpanicked""#);
    for script in [
        "echo '{}'",
        r#"echo '{"done":{"digest":"../../etc/passwd"}}'"#,
        r#"echo '{"progress":{"done_bytes":-1,"total_bytes":5}}'"#,
        "cat /dev/zero",
        "yes | tr -d '\\n'",
    ] {
        let told = complaint(script);
        assert!(told.starts_with("the registry client said") && told.len() < 1000, "{script}: {told}");
    }
}

#[test]
fn causes_come_in_their_order() {
    let script =
        r#"echo '{"failed":{"registry":{"what":"x","image":"i","answer":"login","because":["a","b","c"]}}}'"#;
    let failure = from_client(script).0.expect("told").expect_err("failed");
    let error = PullError::told(failure, "i", Path::new("."), &Budgets::default());
    assert!(error.remedy().contains("wants a login"), "{}", error.remedy());
    let chain: Vec<String> =
        std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
            .map(ToString::to_string)
            .collect();
    assert_eq!(chain, ["get x of i", "a", "b", "c"]);
}

#[test]
fn a_digest_that_was_asked_for_is_not_left_to_the_client() {
    let dir = tempfile::tempdir().unwrap();
    let budgets = Budgets::default();
    let manifest = Digest::of(b"manifest");
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{manifest}","size":8}}]}}"#
    );
    let asked = Digest::of(index.as_bytes());
    let named = |name: &str, digest| names(name, digest, dir.path(), &budgets);
    assert!(named("h/a:1", manifest));
    assert!(named(&format!("h/a@{manifest}"), manifest));
    assert!(!named(&format!("h/a@{asked}"), manifest), "no such index");
    std::fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
    let path = dir.path().join("blobs/sha256").join(asked.hex());
    std::fs::write(&path, &index).unwrap();
    assert!(named(&format!("h/a@{asked}"), manifest));
    assert!(!named(&format!("h/a@{asked}"), Digest::of(b"another")), "not listed");
    std::fs::write(&path, index.replace("size\":8", "size\":9")).unwrap();
    assert!(!named(&format!("h/a@{asked}"), manifest), "another index");
}

#[test]
fn refuses_a_bad_name_before_any_connection() {
    let dir = tempfile::tempdir().unwrap();
    let budgets = Budgets::default();
    for name in ["", "UPPER", "a b", "a@sha256:12", "\u{1b}[2J"] {
        let error = pull(name, dir.path(), &PullOptions::default(), &budgets, &mut |_| {});
        let error = error.expect_err(name).to_string();
        assert!(error.ends_with("is not an image reference") && !error.contains('\u{1b}'), "{error}");
    }
}
