//! How far a run is, on standard error.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::format;

/// A line with the step, the losses, the speed and the time left.
///
/// On a terminal it is one line that is redrawn in place; elsewhere (a file, a pipe) it is a line of
/// its own at the first and the last step and every few seconds.
pub struct Progress {
    output: Output,
    interval: Duration,
    total: u64,
    /// Times and steps of the last half minute, the oldest first.
    marks: VecDeque<(Instant, u64)>,
    drawn: Option<Instant>,
    losses: Shown,
}

/// Where the line goes.
enum Output {
    /// A terminal: one line that is redrawn, of so many columns now.
    Terminal { bar: ProgressBar, columns: fn() -> usize },
    /// A file or a pipe: line after line.
    Plain(Box<dyn Write + Send>),
}

/// The losses that fit in a line.
#[derive(Default)]
struct Shown {
    discriminator: Option<f64>,
    generator: Option<f64>,
    cycle: Option<f64>,
    identity: Option<f64>,
}

/// Speed is measured over this time.
const WINDOW: Duration = Duration::from_secs(30);

impl Progress {
    /// Reports on standard error about a run of `total` steps of which `done` are done already.
    /// Where standard error is no terminal there is a line every `interval`.
    pub fn stderr(done: u64, total: u64, interval: Duration) -> Self {
        let stderr = std::io::stderr();
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if stderr.is_terminal() && !dumb {
            let output = Output::terminal(ProgressDrawTarget::stderr(), terminal_columns);
            Self::new(output, Duration::from_millis(100), done, total, Instant::now())
        } else {
            Self::new(Output::Plain(Box::new(stderr)), interval, done, total, Instant::now())
        }
    }

    fn new(output: Output, interval: Duration, done: u64, total: u64, now: Instant) -> Self {
        let marks = VecDeque::from([(now, done)]);
        Self { output, interval, total, marks, drawn: None, losses: Shown::default() }
    }

    /// Reports that `step` is done, with its losses, if they are known, by their official names.
    ///
    /// Shown are `Discriminator_loss`, `Generator_loss` and, each as the mean of A and B, the cycle
    /// (`G_recon_loss`) and identity (`G_identity_loss`) losses, not weighted. Without losses those of
    /// the last time stay.
    pub fn step(&mut self, step: u64, names: &[&str], losses: &[f64]) {
        self.step_at(Instant::now(), step, names, losses);
    }

    fn step_at(&mut self, now: Instant, step: u64, names: &[&str], losses: &[f64]) {
        self.losses.update(names, losses);
        // A mark twice a second is enough, so that fast runs do not fill memory.
        if self.marks.back().is_none_or(|&(at, _)| now.duration_since(at) >= WINDOW / 60) {
            while self.marks.len() > 1 && now.duration_since(self.marks[1].0) > WINDOW {
                self.marks.pop_front();
            }
            self.marks.push_back((now, step));
        }
        let due = self.drawn.is_none_or(|at| now.duration_since(at) >= self.interval);
        if !due && step < self.total {
            return;
        }
        self.drawn = Some(now);
        let pace = self.pace(now, step);
        let columns = match &self.output {
            Output::Terminal { columns, .. } => columns().saturating_sub(1),
            Output::Plain(_) => usize::MAX,
        };
        let line = self.line(step, pace, columns);
        match &mut self.output {
            Output::Terminal { bar, .. } => bar.set_message(line),
            Output::Plain(out) => put(out, &line),
        }
    }

    /// Writes a line of its own, above the one that is redrawn.
    pub fn message(&mut self, text: &str) {
        match &mut self.output {
            Output::Terminal { bar, .. } => bar.println(text),
            Output::Plain(out) => put(out, text),
        }
    }

    /// Leaves the line as it is. Dropping does it too.
    pub fn finish(&mut self) {
        if let Output::Terminal { bar, .. } = &self.output
            && !bar.is_finished()
        {
            bar.abandon();
        }
    }

    /// Seconds a step takes, once there is something to measure.
    fn pace(&self, now: Instant, step: u64) -> Option<f64> {
        let &(since, first) = self.marks.front()?;
        let steps = step.checked_sub(first).filter(|&n| n > 0)?;
        Some(now.duration_since(since).as_secs_f64() / steps as f64)
    }

    /// The line in the fullest form that fits into `columns`.
    fn line(&self, step: u64, pace: Option<f64>, columns: usize) -> String {
        let step_of = format!("step {step}/{}", self.total);
        let Shown { discriminator, generator, cycle, identity } = self.losses;
        let mut speed = String::new();
        if let Some(pace) = pace {
            speed =
                if pace > 1.0 { format!("  {pace:.2} s/it") } else { format!("  {:.1} it/s", 1.0 / pace) };
            if step < self.total {
                let left = format::duration((self.total - step) as f64 * pace);
                speed = format!("{speed}  {left} left");
            }
        }
        let list = |shown: &[(&str, Option<f64>)]| {
            let known = shown.iter().filter_map(|(name, value)| Some((name, (*value)?)));
            known.map(|(name, value)| format!("  {name} {}", format::four_figures(value))).collect::<String>()
        };
        let full = [("Discriminator_loss", discriminator), ("Generator_loss", generator)];
        let brief = [("D", discriminator), ("G", generator)];
        let parts = [("cycle", cycle), ("identity", identity)];
        let forms = [
            format!("{step_of}{}{}{speed}", list(&full), list(&parts)),
            format!("{step_of}{}{speed}", list(&full)),
            format!("{step_of}{}{speed}", list(&brief)),
            format!("{step_of}{}", list(&brief)),
        ];
        match forms.iter().find(|form| form.len() <= columns) {
            Some(form) => form.clone(),
            None => step_of.chars().take(columns).collect(),
        }
    }
}

impl Output {
    fn terminal(target: ProgressDrawTarget, columns: fn() -> usize) -> Self {
        let style = ProgressStyle::with_template("{msg}").expect("a valid template");
        Self::Terminal { bar: ProgressBar::with_draw_target(None, target).with_style(style), columns }
    }
}

fn put(out: &mut dyn Write, line: &str) {
    // Whoever closed standard error does not want the line; the run goes on.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Shown {
    fn update(&mut self, names: &[&str], losses: &[f64]) {
        let find = |name: &str| names.iter().zip(losses).find(|(n, _)| **n == name).map(|(_, v)| *v);
        let mean = |name: &str| Some((find(&format!("{name}_A"))? + find(&format!("{name}_B"))?) / 2.0);
        self.discriminator = find("Discriminator_loss").or(self.discriminator);
        self.generator = find("Generator_loss").or(self.generator);
        self.cycle = mean("G_recon_loss").or(self.cycle);
        self.identity = mean("G_identity_loss").or(self.identity);
    }
}

fn terminal_columns() -> usize {
    terminal_size::terminal_size_of(std::io::stderr()).map_or(80, |(width, _)| usize::from(width.0))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use indicatif::InMemoryTerm;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    const NAMES: [&str; 6] = [
        "Discriminator_loss",
        "Generator_loss",
        "G_recon_loss_A",
        "G_recon_loss_B",
        "G_identity_loss_A",
        "G_identity_loss_B",
    ];
    const LOSSES: [f64; 6] = [7.98765, 2945.61, 0.25, 0.75, 0.3, 0.1];

    fn plain(done: u64, total: u64) -> (Progress, Sink, Instant) {
        let (sink, now) = (Sink::default(), Instant::now());
        let output = Output::Plain(Box::new(sink.clone()));
        (Progress::new(output, Duration::from_secs(10), done, total, now), sink, now)
    }

    fn seconds(n: f64) -> Duration {
        Duration::from_secs_f64(n)
    }

    #[test]
    fn plain_lines_come_at_the_ends_and_every_interval() {
        let (mut progress, sink, t) = plain(0, 100);
        for step in 1..=100 {
            progress.step_at(t + seconds(step as f64 / 2.0), step, &NAMES, &LOSSES);
        }
        drop(progress);
        let text = sink.take();
        let lines: Vec<&str> = text.lines().collect();
        let steps: Vec<&str> = lines.iter().map(|l| l.split("  ").next().unwrap()).collect();
        let want = ["1", "21", "41", "61", "81", "100"].map(|n| format!("step {n}/100"));
        assert_eq!(steps, want);
        assert_eq!(
            lines[1],
            "step 21/100  Discriminator_loss 7.9877  Generator_loss 2945.6  \
             cycle 0.5000  identity 0.2000  2.0 it/s  40s left"
        );
        assert!(lines[5].ends_with("  2.0 it/s"), "{}", lines[5]);
        assert!(!text.contains('\r'));
    }

    #[test]
    fn a_terminal_has_one_line_that_fits() {
        let term = InMemoryTerm::new(10, 60);
        let target = ProgressDrawTarget::term_like(Box::new(term.clone()));
        let (output, t) = (Output::terminal(target, || 60), Instant::now());
        let mut progress = Progress::new(output, Duration::from_secs(10), 0, 100, t);
        progress.step_at(t + seconds(2.0), 1, &NAMES, &LOSSES);
        let first = "step 1/100  D 7.9877  G 2945.6  2.00 s/it  3m 18s left";
        assert_eq!(term.contents(), first);
        progress.step_at(t + seconds(4.0), 2, &NAMES, &LOSSES);
        assert_eq!(term.contents(), first, "not due yet");
        progress.message("saved");
        assert_eq!(term.contents(), format!("saved\n{first}"));
        // indicatif redraws at most so many times a second, and always at the end.
        std::thread::sleep(Duration::from_millis(200));
        progress.step_at(t + seconds(200.0), 100, &[], &[]);
        drop(progress);
        assert_eq!(term.contents(), "saved\nstep 100/100  D 7.9877  G 2945.6  2.00 s/it");
    }

    #[test]
    fn lines_get_shorter_with_the_terminal() {
        let (mut progress, ..) = plain(0, 1000);
        progress.losses.update(&NAMES, &LOSSES);
        for columns in 0..130 {
            let line = progress.line(7, Some(1.5), columns);
            assert!(line.len() <= columns && (columns < 8 || line.starts_with("step 7/1")));
        }
        assert_eq!(progress.line(7, None, 30), "step 7/1000");
        assert_eq!(progress.line(7, None, 4), "step");
    }

    #[test]
    fn speed_forgets_the_distant_past_and_what_a_run_did_before() {
        let (mut progress, sink, t) = plain(5000, 100_000);
        progress.step_at(t + seconds(60.0), 5001, &[], &[]);
        assert_eq!(sink.take(), "step 5001/100000  60.00 s/it  65d 23h left\n");
        for i in 1..=400 {
            progress.step_at(t + seconds(60.0 + i as f64 / 4.0), 5001 + i, &[], &[]);
        }
        assert!(sink.take().trim_end().ends_with("  4.0 it/s  6h 34m left"));
        assert!(progress.marks.len() < 70);
    }
}
