//! Renderings per second, through the worker processes and bare.

use std::{sync::Arc, time::Instant};

use anyhow::{Context as _, ensure};
use minijinja::{Environment, UndefinedBehavior, syntax::SyntaxConfig, value::Serde};
use serde_json::Value;
use titan_api::poll::Bundle;
use titan_control_plane::render::{Job, Renderer, RendererConfig, Template, WorkerCommand};
use titan_tests::{
    manifests,
    measures::{Figure, Goal, Samples},
};

use crate::{hosts, options::Options};

/// Distinct contexts.
const CONTEXTS: usize = 10_000;

/// Renderings of distinct contexts per second, beside the engine by itself on as many threads.
pub(crate) async fn speed(options: &Options) -> anyhow::Result<Vec<Figure>> {
    let (count, rounds) = options.pick((CONTEXTS, 7), (200, 1));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let spec = manifests::template("own", &[("settings.conf.j2", &hosts::text("own"))])["spec"].take();
    let template = Arc::new(
        Template::parse(&serde_json::from_value(spec)?)
            .map_err(|problem| anyhow::anyhow!("the template of the benchmark is not valid: {}", problem.detail))?,
    );
    let contexts: Vec<_> = (0..count).map(|number| Arc::new(hosts::context(number, number))).collect();
    let jobs: Vec<_> = contexts
        .iter()
        .map(|context| Job { template: Arc::clone(&template), context: Arc::clone(context), overlay: None })
        .collect();
    let renderer = |workers| -> anyhow::Result<Renderer> {
        Ok(Renderer::new(RendererConfig { workers, ..RendererConfig::new(WorkerCommand::own()?) }))
    };
    let (one, all) = (renderer(1)?, renderer(cores)?);
    same_text(&all, &jobs[..count.min(20)]).await?;
    let mut samples: [Samples; 4] = Default::default();
    for _ in 0..rounds {
        for (samples, threads) in samples[..2].iter_mut().zip([1, cores]) {
            samples.push(bare(&contexts, threads)?);
        }
        for (samples, renderer) in samples[2..].iter_mut().zip([&one, &all]) {
            let jobs = jobs.clone();
            let begun = Instant::now();
            let results = renderer.render(jobs).await;
            let elapsed = begun.elapsed().as_secs_f64();
            ensure!(results.iter().all(Result::is_ok), "a context could not be rendered");
            samples.push(count as f64 / elapsed);
        }
    }
    let [bare_one, bare_all, one, all] = samples;
    let note = format!("{rounds} rounds of {count} distinct contexts, 1 file of 0.7 KB");
    Ok(vec![
        Figure::new("renderings, 1 worker process", one.median(), "1/s")
            .beside("bare minijinja, 1 thread", bare_one.median())
            .goal(Goal::RatioAtLeast(0.8))
            .note(note),
        Figure::new(format!("renderings, {cores} worker processes"), all.median(), "1/s")
            .beside(format!("bare minijinja, {cores} threads"), bare_all.median())
            .goal(Goal::RatioAtLeast(0.8)),
    ])
}

/// Checks that both sides do the same work.
async fn same_text(renderer: &Renderer, jobs: &[Job]) -> anyhow::Result<()> {
    let environment = environment()?;
    let template = environment.get_template("settings.conf")?;
    for (job, result) in jobs.iter().zip(renderer.render(jobs.to_vec()).await) {
        let rendered = result.map_err(|problem| anyhow::anyhow!("{}", problem.detail))?;
        let bundle: Bundle = serde_json::from_slice(&rendered.body)?;
        let text = template.render(Serde(job.context.as_ref()))?;
        ensure!(bundle.files[0].content.as_ref() == Some(&text), "the two sides rendered different texts");
    }
    Ok(())
}

fn environment() -> anyhow::Result<Environment<'static>> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_syntax(SyntaxConfig::builder().keep_trailing_newline(true).build()?);
    environment.add_template_owned("settings.conf", hosts::text("own"))?;
    Ok(environment)
}

/// Returns how many texts a second the engine makes by itself on `threads` threads.
fn bare(contexts: &[Arc<Value>], threads: usize) -> anyhow::Result<f64> {
    let environments = (0..threads.max(1)).map(|_| environment()).collect::<anyhow::Result<Vec<_>>>()?;
    let begun = Instant::now();
    let part = contexts.len().div_ceil(threads.max(1)).max(1);
    std::thread::scope(|scope| {
        let running: Vec<_> =
            contexts.chunks(part).zip(&environments).map(|(part, own)| scope.spawn(|| texts(own, part))).collect();
        for thread in running {
            thread.join().ok().context("a thread panicked")??;
        }
        anyhow::Ok(())
    })?;
    Ok(contexts.len() as f64 / begun.elapsed().as_secs_f64())
}

/// Renders each context and returns how many bytes came out.
fn texts(environment: &Environment<'_>, contexts: &[Arc<Value>]) -> anyhow::Result<usize> {
    let template = environment.get_template("settings.conf")?;
    let mut bytes = 0;
    for context in contexts {
        bytes += template.render(Serde(context.as_ref()))?.len();
    }
    Ok(std::hint::black_box(bytes))
}
