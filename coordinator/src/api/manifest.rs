//! What the coordinator makes sure of before it stores a manifest: form, and that it speaks of this
//! very file. Whether the key is trusted is each router's own question.

use std::io;

use shared::{
    hex::{Sha256, sha256},
    manifest::{Manifest, ManifestError},
    signature::Signature,
};

use super::error::{Answer, ApiError};
use crate::artifacts::{ArtifactError, download::Stored};
use crate::store::image::SignedManifest;

/// What a manifest has to agree with.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The name of the build's category.
    pub category: &'a str,
    /// The image's type.
    pub tool: &'a str,
    /// Bytes.
    pub size: u64,
    pub sha256: Sha256,
}

/// Reads the two parts, of which both or none must be there.
pub fn read(
    manifest: Option<Vec<u8>>,
    signature: Option<String>,
    subject: Subject<'_>,
) -> Answer<Option<(SignedManifest, Manifest)>> {
    match (manifest, signature) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(ApiError::field("signature", "A manifest needs its signature.")),
        (None, Some(_)) => Err(ApiError::field("manifest", "A signature needs its manifest.")),
        (Some(manifest), Some(signature)) => check(manifest, signature, subject).map(Some),
    }
}

fn check(
    bytes: Vec<u8>,
    signature: String,
    subject: Subject<'_>,
) -> Answer<(SignedManifest, Manifest)> {
    let signed_by = match Signature::parse(&signature) {
        Ok(signature) => signature.number,
        Err(error) => return Err(ApiError::field("signature", format!("Malformed: {error}."))),
    };
    let manifest = Manifest::parse(&bytes).map_err(|error| refuse(chain(&error)))?;
    let file = &manifest.file;
    if file.size != subject.size {
        let size = subject.size;
        return Err(refuse(format!("it says {} bytes, the file has {size}", file.size)));
    }
    if file.sha256 != subject.sha256 {
        return Err(refuse("its SHA-256 is not the file's".into()));
    }
    if manifest.category != subject.category {
        let (signed, category) = (&manifest.category, subject.category);
        return Err(refuse(format!("it is for category {signed:?}, the build is in {category:?}")));
    }
    if manifest.tool.profile != subject.tool {
        let (profile, tool) = (&manifest.tool.profile, subject.tool);
        return Err(refuse(format!("its tool is {profile:?}, the image's type {tool:?}")));
    }
    let sequence = manifest.sequence;
    Ok((SignedManifest { manifest: bytes, signature, signed_by, sequence }, manifest))
}

/// Whether every block of the file has the digest that the manifest says.
pub async fn check_blocks(file: Stored, manifest: Manifest) -> Answer<()> {
    let check = move || {
        file.blocks(manifest.block_size, |number, block| {
            match manifest.blocks.get(number) == Some(&sha256(block)) {
                true => Ok(()),
                false => Err(BlockError::Wrong(number)),
            }
        })
    };
    match tokio::task::spawn_blocking(check).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(BlockError::Wrong(number))) => {
            Err(refuse(format!("the digest of block {number} is not the file's")))
        }
        Ok(Err(BlockError::Io(error))) => Err(ArtifactError::from(error).into()),
        Err(error) => Err(ApiError::internal(&error)),
    }
}

enum BlockError {
    Wrong(usize),
    Io(io::Error),
}

impl From<io::Error> for BlockError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn refuse(problem: String) -> ApiError {
    ApiError::field("manifest", format!("Refused: {problem}."))
}

fn chain(error: &ManifestError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
