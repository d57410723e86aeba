//! `upload`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use futures_util::{Stream, StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Body, Method, multipart};
use serde_json::{Value, json};
use shared::manifest::Manifest;
use tokio::io::AsyncReadExt;

use super::client::Client;
use super::firmware::beside;
use super::output::{self, Output, cell, say};

#[derive(Debug, Args)]
// `--version` is the build's here.
#[command(disable_version_flag = true)]
pub struct Arguments {
    /// Name of the category; made where it is missing
    #[arg(long, value_name = "NAME")]
    category: String,
    /// Version of the build; made where it is missing
    #[arg(long)]
    version: String,
    /// Modem model of a new build, for people
    #[arg(long, default_value = "")]
    model: String,
    /// Organization of a new category [default: your only one; shared for superusers]
    #[arg(long, value_name = "SLUG")]
    organization: Option<String>,
    /// A board that the image is for; repeat for several [default: the manifest's models]
    #[arg(long = "board", value_name = "BOARD")]
    boards: Vec<String>,
    /// The upgrade tool [default: the manifest's]
    #[arg(long, value_name = "PROFILE")]
    tool: Option<String>,
    /// Manifest [default: FILE.manifest.json, if there is one]
    #[arg(long, value_name = "FILE", requires = "signature")]
    manifest: Option<PathBuf>,
    /// Its signature [default: FILE.manifest.json.sig]
    #[arg(long, value_name = "FILE", requires = "manifest")]
    signature: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
    /// The firmware
    file: PathBuf,
}

/// A manifest's bytes with their signature.
struct Signed {
    manifest: Vec<u8>,
    signature: Vec<u8>,
}

const PIECE: usize = 256 << 10;

pub async fn run(client: &Client, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let file = tokio::fs::File::open(&arguments.file).await;
    let file = file.with_context(|| cannot_read(&arguments.file))?;
    let signed = signed(&arguments).await?;
    let tool = tool(&arguments, signed.as_ref())?;
    let build = build(client, &arguments).await?;
    let form = form(&arguments, file, tool, &signed).await?;
    let request = client.upload(&format!("build/{build}/image/")).multipart(form);
    let image = client.answer(request).await.context("the upload failed")?;
    if arguments.output.json {
        output::json(&image)?;
        return Ok(ExitCode::SUCCESS);
    }
    say!("image {}", cell(&image["id"]))?;
    if signed.is_none() {
        say!(
            "It has no signed manifest, so nothing will flash it: run `modem-upgrader firmware sign` \
             and upload the manifest and signature to image/{}/manifest/.",
            cell(&image["id"])
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn signed(arguments: &Arguments) -> anyhow::Result<Option<Signed>> {
    let (manifest, signature) = match (&arguments.manifest, &arguments.signature) {
        (Some(manifest), Some(signature)) => (manifest.clone(), signature.clone()),
        _ => {
            let manifest = beside(&arguments.file, ".manifest.json");
            if !manifest.exists() {
                return Ok(None);
            }
            let signature = beside(&manifest, ".sig");
            (manifest, signature)
        }
    };
    Ok(Some(Signed { manifest: read(&manifest).await?, signature: read(&signature).await? }))
}

async fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    tokio::fs::read(path).await.with_context(|| cannot_read(path))
}

fn cannot_read(path: &Path) -> String {
    format!("cannot read {}", path.display())
}

fn tool(arguments: &Arguments, signed: Option<&Signed>) -> anyhow::Result<String> {
    match (&arguments.tool, signed) {
        (Some(tool), _) => Ok(tool.clone()),
        (None, Some(signed)) => Ok(Manifest::parse(&signed.manifest)?.tool.profile),
        (None, None) => bail!("give --tool, or a manifest that names the tool"),
    }
}

/// The build's id; the category and the build are made where they are missing.
async fn build(client: &Client, arguments: &Arguments) -> anyhow::Result<String> {
    let mut query = vec![("name", arguments.category.clone())];
    query.extend(arguments.organization.clone().map(|slug| ("organization", slug)));
    let category = match one(client.all("category/", &query).await?, "categories")? {
        Some(category) => category,
        None => {
            let mut new = json!({ "name": arguments.category });
            if let Some(slug) = &arguments.organization {
                new["organization"] = json!(slug);
            }
            client.send(Method::POST, "category/", &new).await.context("no category")?
        }
    };
    let category = cell(&category["id"]);
    let query = [("category", category.clone()), ("version", arguments.version.clone())];
    let build = match one(client.all("build/", &query).await?, "builds")? {
        Some(build) => build,
        None => {
            let new = json!({
                "category": category,
                "version": arguments.version,
                "modem_model": arguments.model,
            });
            client.send(Method::POST, "build/", &new).await.context("no build")?
        }
    };
    Ok(cell(&build["id"]))
}

fn one(mut found: Vec<Value>, what: &str) -> anyhow::Result<Option<Value>> {
    if found.len() > 1 {
        bail!("several {what} of this name: give --organization");
    }
    Ok(found.pop())
}

async fn form(
    arguments: &Arguments,
    file: tokio::fs::File,
    tool: String,
    signed: &Option<Signed>,
) -> anyhow::Result<multipart::Form> {
    let path = &arguments.file;
    let size = file.metadata().await?.len();
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let body = Body::wrap_stream(pieces(file, progress(size, arguments.output.json)?));
    let file = multipart::Part::stream_with_length(body, size).file_name(name);
    let mut form = multipart::Form::new().text("type", tool);
    if !arguments.boards.is_empty() {
        form = form.text("boards", json!(arguments.boards).to_string());
    }
    if let Some(Signed { manifest, signature }) = signed {
        form = form
            .part("manifest", multipart::Part::bytes(manifest.clone()))
            .part("signature", multipart::Part::bytes(signature.clone()));
    }
    Ok(form.part("file", file))
}

fn progress(size: u64, hidden: bool) -> anyhow::Result<ProgressBar> {
    let bar = if hidden { ProgressBar::hidden() } else { ProgressBar::new(size) };
    let style = "[{bar:40}] {bytes}/{total_bytes}  {bytes_per_sec}  {eta}";
    let style = ProgressStyle::with_template(style).context("the progress bar's template")?;
    bar.set_style(style.progress_chars("#>-"));
    Ok(bar)
}

/// The file, a piece at a time in memory.
fn pieces(
    file: tokio::fs::File,
    bar: ProgressBar,
) -> impl Stream<Item = std::io::Result<Vec<u8>>> + Send {
    stream::try_unfold((file, bar), |(mut file, bar)| async move {
        let mut piece = vec![0; PIECE];
        let read = file.read(&mut piece).await?;
        bar.inc(read as u64);
        if read == 0 {
            bar.finish_and_clear();
            return Ok(None);
        }
        piece.truncate(read);
        Ok(Some((piece, (file, bar))))
    })
    .boxed()
}
