use isolab_vmm::probe::probe_at;

use super::*;
use crate::doctor::tests::{complete, report};

fn with(change: impl FnOnce(&mut Facts), kernel: bool) -> Report {
    let mut facts = complete();
    change(&mut facts);
    report(facts, probe_at(c"/nonexistent/kvm"), kernel)
}

fn lines(plan: &Plan) -> Vec<String> {
    plan.commands.iter().map(|command| command.join(" ")).collect()
}

#[test]
fn nothing_missing_means_nothing_to_do() {
    assert!(plan(&with(|_| {}, true), Scope::Tests).unwrap().is_empty());
}

#[test]
fn installs_qemu_only_where_it_is_missing() {
    let plan = plan(&with(|f| f.qemu = None, true), Scope::Run).unwrap();
    assert_eq!(
        lines(&plan),
        ["apt-get update", "apt-get install -y --no-install-recommends qemu-system-x86"]
    );
    assert!(!plan.fetch_kernel);
}

#[test]
fn fetches_the_kernel_where_it_is_missing() {
    let plan = plan(&with(|_| {}, false), Scope::Run).unwrap();
    assert!(plan.fetch_kernel && plan.commands.is_empty());
    assert_eq!(plan.to_string(), "  isolab kernel fetch\n");
}

#[test]
fn test_tools_need_their_scope() {
    let report =
        with(|f| f.test_tools = [("skopeo".to_owned(), false), ("runc".to_owned(), true)].into(), true);
    assert!(plan(&report, Scope::Run).unwrap().is_empty());
    let last = lines(&plan(&report, Scope::Tests).unwrap()).pop().unwrap();
    assert!(last.ends_with("--no-install-recommends skopeo"), "{last}");
}

#[test]
fn other_distributions_have_their_own_command_and_names() {
    let of = |manager: &str| {
        let facts = Facts { package_manager: Some(manager.to_owned()), ..complete() };
        lines(&compose(&facts, &["qemu-system-x86"], false, false).unwrap())
    };
    assert_eq!(of("dnf"), ["dnf install -y --setopt=install_weak_deps=False qemu-system-x86-core"]);
    assert_eq!(of("pacman"), ["pacman -S --needed --noconfirm qemu-system-x86"]);
}

#[test]
fn users_go_through_sudo() {
    let plan = compose(&complete(), &["runc"], false, true).unwrap();
    assert!(lines(&plan).iter().all(|line| line.starts_with("sudo apt-get ")), "{plan}");
}

#[test]
fn without_a_package_manager_the_packages_are_named() {
    let report = with(|f| (f.qemu, f.package_manager) = (None, None), true);
    let error = plan(&report, Scope::Run).unwrap_err().to_string();
    assert!(error.contains("qemu-system-x86"), "{error}");
}

#[test]
fn a_failed_command_stops_with_its_line() {
    let error = run(&["false".to_owned()]).unwrap_err();
    assert_eq!(error.to_string(), "false failed with exit status: 1");
    let error = run(&["/nonexistent/tool".to_owned(), "x".to_owned()]).unwrap_err();
    assert_eq!(error.to_string(), "start /nonexistent/tool x");
}

#[test]
fn fix_fetches_through_the_callback_and_looks_again() {
    let kernel = std::env::temp_dir().join(format!("isolab-fix-{}", std::process::id()));
    let inputs = Inputs { stock_kernel: kernel.clone(), lab: false };
    let mut before = with(|_| {}, false);
    before.stock_kernel.path = kernel.clone();
    let mut fetch = || Ok(std::fs::write(&kernel, b"kernel")?);
    let after = fix(before.clone(), &inputs, Scope::Run, true, &mut fetch).unwrap();
    std::fs::remove_file(&kernel).unwrap();
    assert!(after.stock_kernel.present);
    let mut broken = || Err(anyhow::anyhow!("no network"));
    let error = fix(before, &inputs, Scope::Run, true, &mut broken).unwrap_err();
    assert!(matches!(error, FixError::Kernel(_)), "{error:?}");
}
