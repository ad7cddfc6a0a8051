//! A line that says how far something is: moving on a terminal, plain elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Output, warn};

/// The line. It goes to standard error, so that standard output stays for results.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    last: String,
    quiet: bool,
}

impl Progress {
    /// Returns a line for `output`; programs see none.
    pub(crate) fn new(output: Output) -> Self {
        let target = ProgressDrawTarget::stderr();
        let bar = (output.for_people() && !target.is_hidden()).then(|| {
            let bar = ProgressBar::with_draw_target(None, target);
            if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, last: String::new(), quiet: !output.for_people() }
    }

    /// Says how far it is; on a terminal in place of what was said before, elsewhere only if it is something new.
    pub(crate) fn say(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None if !self.quiet && self.last != text => {
                text.clone_into(&mut self.last);
                warn(text);
            }
            None => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
