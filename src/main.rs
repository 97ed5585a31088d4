//! The isolab command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

mod lab;

fn main() -> ExitCode {
    if let Some(status) = lab::take_over() {
        return status.into();
    }
    match trial() {
        Ok(status) => status.into(),
        Err(error) => {
            eprintln!("isolab: {error:#}");
            125.into()
        }
    }
}

/// Stand-in for the command line while the parts are put together.
fn trial() -> anyhow::Result<u8> {
    use isolab_images::kernels::{AddKernel, KernelStore, add, fetch};
    let args: Vec<String> = std::env::args().skip(1).collect();
    let store = KernelStore::new(
        std::path::PathBuf::from(std::env::var("ISOLAB_HOME").unwrap_or_default()).join("kernels"),
    );
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["fetch"] => {
            let e = fetch(&store, &mut |s| eprintln!("{s:?}"))?;
            println!("{:#?}", e.info());
        }
        ["add", path, modules] => {
            let e = add(&store, &AddKernel { path: path.into(), name: None, modules: Some(modules.into()) })?;
            println!("{:#?}", e.info());
        }
        ["ls"] => println!("{:#?}", store.list()?),
        ["rm", name] => store.remove(name)?,
        ["exec", program, rest @ ..] => {
            use std::os::unix::process::CommandExt;
            return Err(std::process::Command::new(program).args(rest).exec().into());
        }
        ["exit", n] => return Ok(n.parse()?),
        ["cat"] => drop(std::io::copy(&mut std::io::stdin(), &mut std::io::stdout())?),
        ["say", out, err] => {
            println!("{out}");
            eprintln!("{err}");
        }
        ["show", paths @ ..] => {
            for path in paths {
                println!("== {path}");
                if std::path::Path::new(path).is_dir() {
                    for e in std::fs::read_dir(path)? {
                        println!("{}", e?.path().display());
                    }
                } else {
                    println!("{}", std::fs::read_to_string(path)?);
                }
            }
        }
        ["tty"] => loop {
            let size = rustix::termios::tcgetwinsize(std::io::stdout())?;
            println!(
                "size {} {} tty {}",
                size.ws_row,
                size.ws_col,
                std::path::Path::new("/dev/tty").exists()
            );
            std::fs::File::open("/dev/tty")?;
            let mut line = String::new();
            std::io::stdin().read_line(&mut line)?;
            println!("line {line:?}");
            if line.starts_with('q') {
                break;
            }
        },
        ["sleep", n] => std::thread::sleep(std::time::Duration::from_secs(n.parse()?)),
        ["lab", clock, stdio, ret, rest @ ..] => {
            let kernel = store.get(&std::env::var("K").unwrap_or_else(|_| "stock".into()))?;
            let mut images = Vec::new();
            if let Ok(path) = std::env::var("IMG") {
                let digest = format!("sha256:{}", "a".repeat(64));
                images.push(lab::LabImage {
                    names: vec!["x/y".into()],
                    digest,
                    record: "{}".into(),
                    file: std::fs::File::open(path)?,
                });
            }
            let request = lab::LabRequest {
                args: rest.iter().map(|s| (*s).to_owned()).collect(),
                env: vec![],
                images,
                kernels: if std::env::var_os("NOK").is_some() { vec![] } else { vec![kernel.clone()] },
                kernel,
                clock: if *clock == "i" { lab::LabClock::Instructions } else { lab::LabClock::Wall },
                memory_mib: 1024,
                cpus: clock.trim_start_matches('w').parse().unwrap_or(1),
                stdio: match *stdio {
                    "t" => lab::LabStdio::Terminal,
                    "i" => lab::LabStdio::Interactive,
                    _ => lab::LabStdio::Output,
                },
                returns: if *ret == "-" { vec![] } else { vec![(*ret).to_owned()] },
            };
            let out = lab::run(request, &mut |p| eprintln!("{p:?}"))?;
            for f in out.files {
                eprintln!("file: {:?}", f.map(|f| f.len()));
            }
            return Ok(out.status);
        }
        _ => anyhow::bail!("what?"),
    }
    Ok(0)
}
