//! `ugatit kernels`, `profile` and `study`: what is counted adds up, and the pages work in a browser.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{Ended, command};
use ugatit::device::select::Choice;
use ugatit::format;
use ugatit::kernels::{self, Kernel};
use ugatit::model::{Term, machine, predict};
use ugatit::nn::Config;
use ugatit::study::counts::{Counts, KernelRecord};
use ugatit::study::profile::{self, Totals};
use ugatit::study::run::{Record, Step, training_step};
use ugatit::study::{atlas, suggest, user_kernel};
use ugatit::tape::{NormVariant, Precision};
use ugatit::train::{Model, Recording, record_step};

fn small_step() -> Step {
    let cfg = Config { img_size: 16, ch: 4, n_res: 1, n_dis: 2, light: true, ..Config::default() };
    Step { cfg, batch: 1, seed: 3, norm: NormVariant::PadFused, precision: Precision::F32, target: None }
}

#[test]
fn a_profile_has_the_totals_of_the_plan() {
    let step = small_step();
    let record = training_step(&step, Choice::Emulator).expect("a step runs");

    let mut model = Model::for_training(&step.cfg);
    let (tape, _) = record_step(&mut model, step.batch, Recording::default());
    let plan = ugatit::tape::plan("training step", &tape, &model.layout).expect("it can be planned").program;
    let totals = Totals::of(&plan);
    assert_eq!(totals, Totals::of(&record.program));
    assert_eq!(totals.launches as usize, record.kernels.iter().map(|k| k.launches.len()).sum::<usize>());
    assert_eq!(totals.min_bytes, record.kernels.iter().map(|k| k.min_bytes()).sum::<u64>());
    assert_eq!(totals.flops, record.kernels.iter().map(|k| k.flops()).sum::<u64>());

    let a100 = machine::find("a100").unwrap();
    let json = profile::json(&record, &step, a100);
    assert_eq!(json["total"]["launches"], totals.launches);
    assert_eq!(json["total"]["flops"], totals.flops);
    let shares: f64 = json["kernels"].as_array().unwrap().iter().map(|k| k["share"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-9, "the shares add up to {shares}");
    let table = profile::table(&record, &step, a100);
    for k in &record.kernels {
        assert!(table.contains(k.kernel.name), "{} is missing", k.kernel.name);
    }

    // What is predicted is what the plan predicts, and the terms are of those launches.
    let planned: f64 = predict(&plan, a100, &|_| ()).unwrap().iter().map(|p| p.time.us).sum();
    let shown = json["predicted"]["ms"].as_f64().unwrap();
    assert!((shown * 1e3 - planned).abs() < 1e-6 * planned, "{shown} ms, planned {planned} µs");
    assert!(
        table.contains(&format!("predicted for A100 80 GB SXM: {}", format::milliseconds(shown))),
        "{table}"
    );
    for k in json["kernels"].as_array().unwrap() {
        let launches = k["launches"].as_array().unwrap();
        for key in ["us", "launch"] {
            let of = |p: &serde_json::Value| {
                if key == "us" { p["us"].as_f64().unwrap() } else { p["terms_us"][key].as_f64().unwrap() }
            };
            let sum: f64 = launches.iter().map(|l| of(&l["predicted"])).sum();
            assert!(sum > 0.0 && (sum - of(&k["predicted"])).abs() < 1e-6 * sum, "{}: {key}", k["name"]);
        }
        assert_eq!(k["predicted"]["terms_us"].as_object().unwrap().len(), Term::ALL.len());
    }

    // Every kernel did something, and what its PTX lines did is what its launches did.
    for k in &record.kernels {
        let counts = k.counts();
        assert!(counts.instructions > 0, "{} counted nothing", k.kernel.name);
        assert_eq!(k.lines.values().copied().sum::<Counts>(), counts, "{}", k.kernel.name);
        assert_eq!(k.classes.values().sum::<u64>(), counts.instructions, "{}", k.kernel.name);
        assert!(counts.lanes <= 32 * counts.instructions && counts.ideal_sectors <= counts.sectors());
    }

    // The pages of all its kernels: no source line is lost, nothing is fetched from elsewhere.
    let folder = tempfile::tempdir().expect("a folder");
    let wanted: Vec<&'static Kernel> = record.kernels.iter().map(|k| k.kernel).take(12).collect();
    let shown = atlas::Shown { gpu: a100, command: "a test" };
    atlas::write(folder.path(), &record, &step, &wanted, [&[], &[]], shown, true).unwrap();
    for kernel in wanted {
        let page = std::fs::read_to_string(folder.path().join(format!("{}.html", kernel.name))).unwrap();
        let of_kernel = record_of(&record, kernel.name);
        check_page(&page, kernel.name, of_kernel.counts());
        check_predicted(&page, of_kernel);
    }
    let index = std::fs::read_to_string(folder.path().join("index.html")).unwrap();
    assert_self_contained(&index, "index.html");
    // The predicted time of the step for every GPU, of which one is shown.
    for gpu in &machine::ALL {
        let ms = format::milliseconds(record.predicted(gpu).unwrap().us / 1e3);
        assert!(index.contains(&format!("Predicted for {}: the step takes {ms}", gpu.name)), "{}", gpu.key);
    }
    assert_eq!(index.matches("class=\"gpu on\"").count(), 1);
}

fn record_of<'a>(record: &'a Record, name: &str) -> &'a KernelRecord {
    record.kernels.iter().find(|k| k.kernel.name == name).expect("it ran")
}

/// A page has a row of bars for each geometry on every GPU: up to eight.
fn check_predicted(page: &str, record: &KernelRecord) {
    let rows = record.geometries().len().min(8) * machine::ALL.len();
    assert_eq!(page.matches("<span class=\"terms\">").count(), rows, "{}", record.kernel.name);
    let all = record.predicted(&machine::ALL[0]).unwrap().us / 1e3;
    let sentence = format!("Predicted for H100 SXM: {} in all launches", format::milliseconds(all));
    assert!(page.contains(&sentence), "{}: {sentence}", record.kernel.name);
}

/// Sums of the source rows and of the PTX rows are the kernel's counts.
fn check_page(page: &str, name: &str, counts: Counts) {
    assert_self_contained(page, name);
    for prefix in ["s", "p"] {
        let sum: u64 = page
            .lines()
            .filter(|l| l.starts_with("<div class=\"r") && l.contains(&format!("\" id=\"{prefix}")))
            .filter_map(|l| l.split_once("data-c=\"")?.1.split([' ', '"']).next()?.parse::<u64>().ok())
            .sum();
        // The row of what has no line stands after its heading.
        let homeless = page.split_once("id=\"s0\" data-c=\"").filter(|_| prefix == "s");
        let rest = homeless.and_then(|(_, l)| l.split([' ', '"']).next()?.parse::<u64>().ok()).unwrap_or(0);
        assert_eq!(sum + rest, counts.instructions, "{name}: rows {prefix}");
    }
}

fn assert_self_contained(page: &str, name: &str) {
    for outside in ["http://", "https://", "//cdn", "@import", "url(", " src=", "<link rel=\"style", "fetch("]
    {
        assert!(!page.contains(outside), "{name} has {outside}");
    }
}

#[test]
fn unknown_kernels_list_their_neighbours() {
    let error = suggest::find("adalin_foward_f32").unwrap_err();
    assert!(error.hint_text().unwrap().contains("adalin_forward_f32"), "{error}");
    let error = suggest::select("conv_backwards_f32").unwrap_err();
    assert_eq!(error.message(), "no kernel is named conv_backwards_f32");
    assert!(kernels::all().iter().all(|k| suggest::find(k.name).is_ok()));
}

const USERS: &str = r#"
__device__ float scaled(float x) {
    return x * 2.f;
}

// Scales, each thread one element.
extern "C" __global__ void scale(float *out, const float *in, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = scaled(in[i]);
}

// All lanes of a warp conflict in one bank.
extern "C" __global__ void one_bank(float *out) {
    __shared__ float tile[32 * 32];
    tile[threadIdx.x * 32] = 1.f;
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x * 32];
}
"#;

/// `ugatit study` of a kernel of a file; the error as a person sees it.
fn study(source: &Path, kernel: &str, [grid, block]: [&str; 2], args: &[&str]) -> Result<(), String> {
    let mut study = command("study");
    study.arg("--source").arg(source).args(["--kernel", kernel, "--grid", grid, "--block", block]);
    study.args(args.iter().flat_map(|a| ["--arg", a])).arg("--out").arg(source.parent().expect("a folder"));
    let ended = Ended::new(&study.output().expect("the binary starts"));
    if ended.code == Some(0) { Ok(()) } else { Err(ended.err) }
}

/// Writes a file and studies a kernel of it.
fn study_text(text: &str, kernel: &str, grid: &str, block: &str, args: &[&str]) -> Result<String, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("mine.cu");
    std::fs::write(&source, text).expect("it can be written");
    study(&source, kernel, [grid, block], args)?;
    Ok(std::fs::read_to_string(folder.path().join(format!("{kernel}.html"))).expect("a page"))
}

/// The numbers of `data-total` on a page: see `data` in `src/study/page/data.rs`.
fn total(page: &str) -> Vec<u64> {
    let (_, rest) = page.split_once("data-total=\"").expect("a viewer");
    rest.split('"').next().unwrap().split(' ').map(|n| n.parse().unwrap()).collect()
}

#[test]
fn a_user_kernel_is_counted() {
    // 1000 elements in 4 blocks of 256: 32 warps, of which the last has 8 threads that do something.
    let page =
        study_text(USERS, "scale", "4", "256", &["buf:f32:1000:empty", "buf:f32:1000", "i32:1000"]).unwrap();
    let t = total(&page);
    let (bytes, sectors, ideal, conflicts, flops) = (t[2], t[3], t[4], t[5], t[7]);
    assert_eq!((bytes, sectors, ideal), (8000, 250, 250));
    assert_eq!((conflicts, flops), (0, 1000));
    assert_self_contained(&page, "scale");
    assert!(page.contains("Scales, each thread one element."));
    assert!(page.contains("data-at=\"mine.cu:9\""));
    assert_eq!(page.matches("<span class=\"terms\">").count(), machine::ALL.len());

    // 32 lanes in one bank: 31 wavefronts more, for the store and for the load.
    let page = study_text(USERS, "one_bank", "1", "32", &["buf:f32:32:empty"]).unwrap();
    let t = total(&page);
    assert_eq!((t[5], t[6]), (62, 2));
}

#[test]
fn faults_of_a_user_kernel_are_reported() {
    let run = |text: &str, args: &[&str]| study_text(text, "k", "1", "32", args).unwrap_err();

    // The compiler's own words.
    let error = run("extern \"C\" __global__ void k(float *p) { p[0] = y; }", &["buf:f32:1"]);
    assert!(error.contains("mine.cu(1): error: identifier \"y\" is undefined"), "{error}");

    let error =
        run("extern \"C\" __global__ void k(float *p) {\n  p[threadIdx.x] = 1.f;\n}", &["buf:f32:31"]);
    assert!(
        error.contains("out of bounds") && error.contains("mine.cu:2") && error.contains("thread (31, 0, 0)"),
        "{error}"
    );

    let error = run("extern \"C\" __global__ void k(float *p) {\n  p[0] = p[1];\n}", &["buf:f32:2:empty"]);
    assert!(error.contains("mine.cu:2"), "{error}");

    // An instruction that the emulator does not know.
    let unknown = "extern \"C\" __global__ void k(unsigned *p) {\n  unsigned r;\n  \
                   asm volatile(\"vabsdiff4.u32.u32.u32.add %0, %1, %2, %3;\" : \"=r\"(r) : \"r\"(p[0]), \"r\"(p[1]), \"r\"(p[2]));\n  \
                   p[3] = r;\n}";
    let error = run(unknown, &["buf:u32:4"]);
    assert!(error.contains("vabsdiff4") && error.contains("PTX line"), "{error}");

    let error = run("extern \"C\" __global__ void other(float *p) {}", &["null"]);
    assert!(error.contains("no kernel k") && error.contains("other"), "{error}");
    let error = run("extern \"C\" __global__ void k(float *p, int n) { p[n] = 1.f; }", &["buf:f32:1"]);
    assert!(
        error.contains("takes 2 arguments, but there are 1") && error.contains("--arg i32:5 (n)"),
        "{error}"
    );
    assert!("buf:f32".parse::<user_kernel::Argument>().is_err());
}

fn browser() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"];
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).flat_map(|f| names.map(|n| f.join(n))).find(|p| p.is_file())
}

/// The document as the browser has it after its scripts ran.
fn dom(browser: &Path, page: &Path, query: &str) -> String {
    let profile = tempfile::tempdir().expect("a folder");
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--window-size=1280,800", "--virtual-time-budget=2000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}{query}", page.display()))
        .output()
        .expect("the browser starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Classes of the row of that id.
fn classes<'a>(dom: &'a str, id: &str) -> Vec<&'a str> {
    let tag =
        dom.split('<').find(|t| t.contains(&format!("id=\"{id}\""))).unwrap_or_else(|| panic!("no row {id}"));
    let (_, rest) = tag.split_once("class=\"").expect("rows have classes");
    rest.split('"').next().unwrap().split(' ').collect()
}

#[test]
fn a_page_works_in_a_browser() {
    let Some(browser) = browser() else {
        println!("skipped: no Chromium or Chrome is installed");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("mine.cu");
    std::fs::write(&source, USERS).unwrap();
    study(&source, "scale", ["4", "256"], &["buf:f32:1000:empty", "buf:f32:1000", "i32:1000"]).unwrap();
    let page = folder.path().join("scale.html");
    // A script of the test's own tells how much was fetched.
    let text = std::fs::read_to_string(&page).unwrap();
    let probe = "<script>root.dataset.fetched = performance.getEntriesByType('resource').filter((e) => !e.name.startsWith('data:')).length</script>";
    std::fs::write(&page, text.replace("</body>", &format!("{probe}</body>"))).unwrap();

    // Line n of mine.cu is row n. Nothing is lit at first; the scripts ran to their end.
    let fresh = dom(&browser, &page, "");
    assert!(fresh.contains("data-ready=\"1\"") && fresh.contains("data-fetched=\"0\""), "the scripts failed");
    assert!(!classes(&fresh, "s9").contains(&"on"));

    // The mouse over the line with the call lights it and, weaker, what was inlined there.
    let multiply = id_of(&fresh, "mul");
    let hovered = dom(&browser, &page, "?hover=s3");
    assert!(classes(&hovered, "s3").contains(&"on"));
    assert!(classes(&hovered, &multiply).contains(&"on"), "{multiply} is not lit");
    let hovered = dom(&browser, &page, "?hover=s9");
    assert!(classes(&hovered, &multiply).contains(&"via"));
    // And the other way round.
    let hovered = dom(&browser, &page, &format!("?hover={multiply}"));
    assert!(classes(&hovered, "s3").contains(&"on") && classes(&hovered, "s9").contains(&"via"));

    // Keys: down three lines with code, up one, another metric, the next view.
    let moved = dom(&browser, &page, "?keys=jjjk4");
    let pinned: Vec<&str> =
        moved.split('<').filter(|t| t.starts_with("div class=\"r") && t.contains(" pin")).collect();
    assert_eq!(pinned.len(), 1, "{pinned:?}");
    assert!(moved.contains("pane src m3") && moved.contains("pane asm m3"));
    // A link to a row, and the theme.
    let linked = dom(&browser, &page, "?theme=dark#s9");
    assert!(classes(&linked, "s9").contains(&"pin") && linked.contains("data-theme=\"dark\""));
}

/// The row of the first PTX instruction of that opcode.
fn id_of(dom: &str, opcode: &str) -> String {
    let row = dom
        .lines()
        .find(|l| {
            l.contains(" id=\"p") && l.contains(&format!("<s class=\"k\">{opcode}.f32"))
                || l.contains(" id=\"p") && l.contains("add.f32")
        })
        .expect("a floating-point instruction");
    row.split_once(" id=\"").unwrap().1.split('"').next().unwrap().to_owned()
}
