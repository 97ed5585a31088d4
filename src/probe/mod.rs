//! `isolab probe`: what of the host can be seen, reached and used at each level, with evidence.
//!
//! In order: things are planted on the host ([`plant`]); the same program runs at each level, `process` first, which has no
//! isolation and shows what this machine has ([`run`]); what it said is read strictly ([`lines`]) and judged by the host's truth
//! ([`truth`], [`judge`]) and the published table (`isolab_bench::probe::table`).

mod calls;
mod errors;
mod host;
mod judge;
mod lines;
mod load;
mod output;
mod plant;
pub(crate) mod run;
mod self_test;
mod stress;
mod truth;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context as _, bail};
use isolab_bench::environment::Host;
use isolab_bench::probe::table::{ROWS, Row, is_stress};
use isolab_bench::probe::{BASELINE, Cell, Config, LevelRun, Outcome, ProbeRecord, Program, SCHEMA};
use isolab_images::job::{Job, Stdio};
use isolab_images::probe::{HASHED, Planted, Spec, fnv};
use isolab_images::programs::{PROBE, PROBE_DIGEST};
use rustix::io::{FdFlags, fcntl_setfd};
use sha2::{Digest, Sha256};

use self::host::HostTruth;
use self::judge::{Context, plain, reason};
use self::lines::Said;
use self::plant::Plants;
use self::run::Ran;
use self::stress::{Look, Watch};
use self::truth::{Lines, Wanted};
use crate::cli::{JobArgs, On, ProbeArgs};
use crate::compare::{self, RECORD_IN_LAB};
use crate::config::JobConfig;
use crate::knobs::Knobs;
use crate::levels::Setup;
use crate::place::{Place, check_lab_options, choose};
use crate::resolve::{self, Resolved};
use crate::signals::Signals;
use crate::{arguments, clock};

/// Time of each probe, in milliseconds of the machine that it runs on.
const LIMIT_MS: u32 = 20_000;
/// Bytes of the image's file that are compared before and after a guest could write to it.
const COMPARED: u64 = 1 << 20;
/// The program's name as its first argument.
const NAME: &str = "isolab-probe";
/// The probe that watches the load of the host, which isolab makes for it.
const LOAD: &str = "P39";
/// Exit status: a cell is not as published, or a probe shows nothing.
const NOT_AS_PUBLISHED: u8 = 1;

/// Probes, in its place.
///
/// # Errors
/// isolab's own: status 125.
pub(crate) fn probe(args: &ProbeArgs) -> anyhow::Result<u8> {
    if args.options.interactive || args.options.tty {
        bail!("probe gives its program no input of yours; leave -i and -t out");
    }
    if args.options.print_config {
        bail!(
            "--print-config is for run, compare and bench; the record of `probe --json` holds the configuration"
        );
    }
    check_lab_options(&args.options)?;
    let rows = rows(args.only.as_deref(), args.stress)?;
    let job = JobArgs { options: args.options.clone(), image: args.image.clone(), command: vec![] };
    let config = with_root_inside(JobConfig::new(&job, None)?);
    if args.self_test {
        if args.options.on == On::Lab {
            bail!("--self-test is of this host; for that of the lab: isolab lab -- probe --self-test demo");
        }
        return self_test::run(args, &config, &rows);
    }
    let levels = compare::levels_of(args.levels.as_ref())?;
    args.output.check()?;
    let image = resolve::image(&config.image)?;
    let record = match choose(args.options.on, levels.iter().any(|level| level == "vm")) {
        Place::Host => match on_host(args, &levels, &config, image, &rows)? {
            Ok(record) => record,
            Err(signal) => return Ok(128_u8.saturating_add(signal)),
        },
        Place::Lab(why) => {
            eprintln!("isolab: running in the lab: {why}");
            match from_lab(args, &job, &config, image)? {
                Ok(record) => record,
                // The isolab inside has said on standard error what there is to say.
                Err(status) => return Ok(status),
            }
        }
    };
    output::write(args, &record)?;
    Ok(if record.as_published() { 0 } else { NOT_AS_PUBLISHED })
}

/// The rows that were asked for, or all.
fn rows(only: Option<&[String]>, stress: bool) -> anyhow::Result<Vec<&'static Row>> {
    let Some(only) = only else {
        return Ok(ROWS.iter().filter(|row| stress || !is_stress(row.id)).collect());
    };
    for id in only {
        if !ROWS.iter().any(|row| row.id.eq_ignore_ascii_case(id)) {
            let ids: Vec<&str> = ROWS.iter().map(|row| row.id).collect();
            bail!("there is no probe {id:?}; the probes are {}", ids.join(", "));
        }
    }
    if let Some(id) = only.iter().find(|id| is_stress(&id.to_uppercase()) && !stress) {
        bail!("probe {id} uses things up; add --stress to run it");
    }
    Ok(ROWS.iter().filter(|row| only.iter().any(|id| row.id.eq_ignore_ascii_case(id))).collect())
}

/// The record of the same probes inside the lab, or the status of the isolab there.
fn from_lab(
    args: &ProbeArgs,
    job: &JobArgs,
    config: &JobConfig,
    image: Resolved,
) -> anyhow::Result<Result<ProbeRecord, u8>> {
    let mut arguments = vec!["probe".to_owned(), format!("--json={RECORD_IN_LAB}"), "--quiet".into()];
    arguments.extend(args.levels.as_ref().map(|levels| format!("--levels={}", levels.join(","))));
    arguments.extend(args.only.as_ref().map(|only| format!("--only={}", only.join(","))));
    arguments.extend(args.stress.then(|| "--stress".to_owned()));
    arguments.extend(args.knob.iter().map(|knob| format!("--knob={knob}")));
    arguments.extend(arguments::of_job(job, image.entry.reference()));
    let name = args.image.clone();
    let seed = compare::seed(None);
    let bytes = match compare::file_from_lab(&args.options, &name, &[config], seed, image, arguments)? {
        Ok(bytes) => bytes,
        Err(status) => return Ok(Err(status)),
    };
    let mut record = ProbeRecord::from_json(&bytes)?;
    // The lab's clock says the same in each run.
    record.started_unix_ns = clock::now_unix_ns()?;
    record.argv = std::env::args().collect();
    record.image = name;
    Ok(Ok(record))
}

/// Whether a probe has a run of its own.
fn runs_alone(id: &str) -> bool {
    is_stress(id) || id == LOAD
}

/// The job of the probe program in this image.
pub(super) fn job_of(config: &JobConfig, image: &Resolved) -> anyhow::Result<Job> {
    let config = JobConfig { command: vec![NAME.to_owned()], ..config.clone() };
    resolve::job(&config, image, false)
}

/// Tries each system call in turn at a level (P06), for who counts what reaches the host's kernel; nothing is planted and nothing judged.
///
/// # Errors
/// The level can't be started, or breaks.
pub(crate) fn sweep(
    level: &str,
    config: &JobConfig,
    image: &Resolved,
    signals: &mut Signals,
) -> anyhow::Result<Ran> {
    let config = with_root_inside(config.clone());
    let job = job_of(&config, image)?;
    let spec = Spec {
        probes: vec!["P06".to_owned()],
        limit_ms: LIMIT_MS,
        planted: Planted::default(),
        files: vec![],
        image_file: String::new(),
        isolab: (0, String::new()),
        tmpfs_bytes: 0,
        env_names: vec![],
    };
    let setup = Setup { program: Some(PROBE), ..Setup::of(&config, image)? };
    run::at_level(level, setup, &job, &spec, None, signals)
}

/// Root inside: what it can't do, no other user can.
fn with_root_inside(config: JobConfig) -> JobConfig {
    JobConfig { user: config.user.or_else(|| Some("0:0".into())), stdio: Stdio::Interactive, ..config }
}

/// What stays the same for all levels of a run.
struct Session<'a> {
    config: &'a JobConfig,
    /// Mechanisms that the container is to lack.
    knobs: Knobs,
    image: &'a Resolved,
    job: Job,
    rows: &'a [&'static Row],
    plants: Plants,
    files: Vec<Wanted>,
    host: HostTruth,
    /// isolab's own program: length, and hash of its beginning.
    isolab: (u64, String),
    signals: Signals,
}

/// One level that was run.
struct Level {
    name: String,
    said: Said,
    before: Lines,
    after: Lines,
    status: u8,
    /// The image's file was the same before and after.
    image_same: bool,
    /// What isolab saw meanwhile of probes that use things up.
    looks: BTreeMap<String, Look>,
}

impl Level {
    /// What a probe told about an item.
    fn told(&self, probe: &str, item: &str) -> Option<&str> {
        self.said.items.get(probe)?.iter().find(|i| i.item == item)?.seen.as_deref()
    }

    /// Whether it told of numbers that do not show this load.
    fn hides(&self, load: load::Plan) -> bool {
        let told = self.said.items.get(LOAD).into_iter().flatten();
        load::is_hidden(told.filter_map(|item| item.seen.as_deref()), load.step_ms)
    }
}

fn on_host(
    args: &ProbeArgs,
    levels: &[String],
    config: &JobConfig,
    image: Resolved,
    rows: &[&'static Row],
) -> anyhow::Result<Result<ProbeRecord, u8>> {
    let started_unix_ns = clock::now_unix_ns()?;
    let (runnable, _) = compare::split(args.levels.is_some(), true, levels, config, &image)?;
    let job = job_of(config, &image)?;
    if args.stress && runnable.iter().any(|level| level == "container") {
        let limits = isolab_container::launch::job_limits(&job);
        if let Err(why) = isolab_container::check::limits_enforceable(&limits) {
            bail!("--stress needs the container's limits: {}; {}", why.reason, why.remedy);
        }
    }
    let mut session = Session::new(config, &image, job, rows)?;
    session.knobs = Knobs::new(&args.knob, "container")?;
    // Without isolation first, whether or not it was asked for: it shows what there is to isolate.
    let order =
        std::iter::once(BASELINE).chain(runnable.iter().map(String::as_str).filter(|name| *name != BASELINE));
    let mut ran = Vec::new();
    for name in order {
        match session.run(name)? {
            Ok(level) => ran.push(level),
            Err(signal) => return Ok(Err(signal)),
        }
    }
    let (cells, runs) = session.judge(&ran, &runnable);
    let (class, clock) = compare::class();
    let config_of_record = Config {
        memory_bytes: config.memory_bytes,
        cpus: config.cpus,
        pids: config.pids,
        read_only: config.read_only,
        free_page_reporting: config.free_page_reporting,
        user: config.user.clone().unwrap_or_default(),
        kernel: config.kernel.clone(),
    };
    let digest =
        Sha256::digest(format!("{} {}", serde_json::to_string(&config_of_record)?, image.entry.digest));
    Ok(Ok(ProbeRecord {
        schema: SCHEMA.to_owned(),
        tool: compare::tool(),
        started_unix_ns,
        argv: std::env::args().collect(),
        host: Host::read(Path::new("/"), class, clock),
        boot_id: session.boot_id(&ran),
        image: config.image.clone(),
        image_digest: image.entry.digest.clone(),
        program: Program { sha256: PROBE_DIGEST.to_owned(), fnv: format!("{:016x}", fnv(PROBE)) },
        config: config_of_record,
        config_digest: digest.iter().map(|b| format!("{b:02x}")).collect(),
        planted: session.plants.facts(),
        levels: runs,
        cells,
    }))
}

impl<'a> Session<'a> {
    fn new(
        config: &'a JobConfig,
        image: &'a Resolved,
        job: Job,
        rows: &'a [&'static Row],
    ) -> anyhow::Result<Self> {
        let host = host::read(&image.file);
        let plants = Plants::new(host.load.step_ms)?;
        let files = truth::files(plants.planted.threads, image.entry.size.div_ceil(1024));
        let mut own = fs::File::open("/proc/self/exe").context("open isolab's own program")?;
        let len = own.metadata().context("look at isolab's own program")?.len();
        let mut beginning = Vec::new();
        own.by_ref().take(HASHED).read_to_end(&mut beginning).context("read isolab's own program")?;
        let isolab = (len, format!("{:016x}", fnv(&beginning)));
        let signals = Signals::catch().context("catch signals")?;
        let knobs = Knobs::default();
        Ok(Self { config, knobs, image, job, rows, plants, files, host, isolab, signals })
    }

    /// What the program is to look for at a level.
    fn spec(&self, level: &str) -> anyhow::Result<Spec> {
        let asked = |row: &&&Row| row.at(level).outcome.outcome() != Some(Outcome::NotApplicable);
        // Whose kernel it is and which hypervisor is needed to judge the others.
        let probes =
            self.rows.iter().filter(asked).map(|row| row.id).filter(|id| *id != "P01" && !runs_alone(id));
        let name =
            |entry: &String| entry.split_once('=').map_or_else(|| entry.clone(), |(name, _)| name.to_owned());
        Ok(Spec {
            probes: std::iter::once("P01").chain(probes).map(str::to_owned).collect(),
            limit_ms: LIMIT_MS,
            planted: self.plants.planted.clone(),
            files: self.files.iter().map(|wanted| wanted.file.clone()).collect(),
            image_file: self.image.entry.path.to_str().unwrap_or_default().to_owned(),
            isolab: self.isolab.clone(),
            // What the levels round up to whole pages, and a page for itself.
            tmpfs_bytes: self.job.memory_bytes / 2 + 8192,
            env_names: self.job.env.iter().map(name).collect(),
        })
    }

    /// Runs a level; a signal that asked for the end instead.
    fn run(&mut self, name: &str) -> anyhow::Result<Result<Level, u8>> {
        let mut level = match self.run_probes(name, self.spec(name)?)? {
            Ok(level) => level,
            Err(signal) => return Ok(Err(signal)),
        };
        // What uses things up may take the whole level with it, and what needs a load disturbs the others, so each has one of its own.
        let asked = |row: &&&Row| {
            runs_alone(row.id) && row.at(name).outcome.outcome() != Some(Outcome::NotApplicable)
        };
        let rows: Vec<&str> = self.rows.iter().filter(asked).map(|row| row.id).collect();
        for id in rows {
            match self.run_alone(name, id)? {
                Ok(more) => {
                    level.said.add(more.said);
                    level.looks.extend(more.looks);
                }
                Err(signal) => return Ok(Err(signal)),
            }
        }
        Ok(Ok(level))
    }

    /// Runs a probe in a run of its own.
    fn run_alone(&mut self, name: &str, id: &str) -> anyhow::Result<Result<Level, u8>> {
        let spec = Spec { probes: vec![id.to_owned()], ..self.spec(name)? };
        // Where other tasks hide a load, they do not each time.
        let looks = if id == LOAD { self.host.load.looks } else { 1 };
        for _ in 1..looks {
            let ran = self.run_probes(name, spec.clone())?;
            if !ran.as_ref().is_ok_and(|level| level.hides(self.host.load)) {
                return Ok(ran);
            }
        }
        self.run_probes(name, spec)
    }

    /// Runs these probes at a level.
    fn run_probes(&mut self, name: &str, spec: Spec) -> anyhow::Result<Result<Level, u8>> {
        let knobs = if name == "container" { self.knobs } else { Knobs::default() };
        let setup = Setup { program: Some(PROBE), knobs, ..Setup::of(self.config, self.image)? };
        // Open in isolab without close-on-exec: it must arrive nowhere.
        let planted = fs::File::open(&self.plants.planted.file).context("open the planted file")?;
        fcntl_setfd(&planted, FdFlags::empty()).context("leave a descriptor open")?;
        let head = self.image_head()?;
        let before = truth::read(&self.files);
        let watch = Watch::of(&spec.probes);
        let begin = match &watch {
            Some(watch) => watch.begin(),
            None if spec.probes == [LOAD] => Some(self.plants.load()?),
            None => None,
        };
        let ran = run::at_level(name, setup, &self.job, &spec, begin, &mut self.signals)?;
        self.plants.no_load()?;
        let look = watch.map(|watch| (spec.probes.concat(), watch.end(&ran)));
        let after = truth::read(&self.files);
        if ran.interrupted.is_none() && !self.plants.are_there() {
            bail!(
                "the planted process ended while level {name} ran, so nothing that was not found shows anything"
            );
        }
        debug_assert!(planted.as_raw_fd() > 2);
        drop(planted);
        if let Some(signal) = ran.interrupted {
            return Ok(Err(signal));
        }
        let mut said =
            lines::read(&ran.said, &spec.probes).with_context(|| format!("read what level {name} said"))?;
        if let ([id], true) = (&spec.probes[..], ran.out_of_memory) {
            said.ended_at_limit(id);
        } else if !said.done {
            eprintln!(
                "isolab: level {name}: the probe program did not run to its end (status {})",
                ran.status
            );
        }
        let image_same = head == self.image_head()?;
        let looks = look.into_iter().collect();
        Ok(Ok(Level { name: name.to_owned(), said, before, after, status: ran.status, image_same, looks }))
    }

    /// The beginning of the image's file as it is on the medium.
    fn image_head(&self) -> anyhow::Result<Vec<u8>> {
        let mut head = Vec::new();
        let file = self.image.entry.open().context("open the image")?;
        file.take(COMPARED).read_to_end(&mut head).context("read the image")?;
        Ok(head)
    }

    /// The host's boot id, which it read itself.
    fn boot_id(&self, ran: &[Level]) -> Option<String> {
        ran.first()?.before.get(&("P01".to_owned(), "boot id".to_owned())).cloned()
    }

    /// The cells of the levels that were asked for, and what is known of those.
    fn judge(&self, ran: &[Level], asked: &[String]) -> (Vec<Cell>, Vec<LevelRun>) {
        let host_boot = self.boot_id(ran);
        let own_kernel = |level: &Level| {
            level.told("P01", "boot id").is_some_and(|boot| Some(boot) != host_boot.as_deref())
        };
        let mut baseline = None;
        let mut baseline_calls = None;
        let mut by_probe: BTreeMap<&str, Vec<Cell>> = BTreeMap::new();
        let mut runs = Vec::new();
        for level in ran {
            let own_kernel = own_kernel(level);
            let context = Context {
                level: &level.name,
                own_kernel,
                files: &self.files,
                before: &level.before,
                after: &level.after,
                host: &self.host,
                baseline: baseline.as_ref(),
                baseline_calls: baseline_calls.as_ref(),
            };
            let cells: Vec<Cell> = self.rows.iter().map(|row| self.cell(row, level, &context)).collect();
            if judge::is_baseline(&level.name) {
                let outcomes =
                    judge::outcomes(cells.iter().map(|cell| (cell.probe.as_str(), cell.items.as_slice())));
                baseline = Some(outcomes);
                baseline_calls = level.told("P06", "sweep").map(calls::read);
            }
            if !asked.contains(&level.name) {
                continue;
            }
            runs.push(LevelRun {
                level: level.name.clone(),
                boot_id: level.told("P01", "boot id").map(str::to_owned),
                own_kernel,
                kernel: level.told("P01", "release").map(str::to_owned),
                program_fnv: level.said.fnv.clone(),
                status: level.status,
            });
            for (row, cell) in self.rows.iter().zip(cells) {
                by_probe.entry(row.id).or_default().push(cell);
            }
        }
        // In the order that was asked for, which is that of the table's columns.
        let place = |level: &str| asked.iter().position(|name| name == level);
        runs.sort_by_key(|run| place(&run.level));
        let in_order = |mut cells: Vec<Cell>| {
            cells.sort_by_key(|cell| place(&cell.level));
            cells
        };
        (by_probe.into_values().flat_map(in_order).collect(), runs)
    }

    fn cell(&self, row: &Row, level: &Level, context: &Context<'_>) -> Cell {
        let ns = level.said.ends.get(row.id).map_or(0, |end| end.ns);
        let mut items = if row.at(&level.name).outcome.outcome() == Some(Outcome::NotApplicable) {
            vec![plain("not asked", Outcome::NotApplicable, Some(row.at(&level.name).means.to_owned()), None)]
        } else {
            context.items(row.id, &level.said)
        };
        if row.id == "P34" && context.own_kernel {
            let outcome = if level.image_same { Outcome::Blocked } else { Outcome::Reached };
            let seen = if level.image_same { "the same" } else { "changed" };
            let mut file = plain(
                "image file on the host",
                outcome,
                Some(seen.into()),
                Some("compared by isolab".into()),
            );
            file.reason = level.image_same.then(|| reason("device", None, None));
            items.push(file);
        }
        if let Some(look) = level.looks.get(row.id) {
            items.extend(look.items(row.id, self.config));
        }
        Cell::judged(row, &level.name, context.own_kernel, ns, items)
    }
}
