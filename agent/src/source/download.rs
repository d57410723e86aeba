//! One image on its way to the disk: which blocks are there, the block that fills, the block that
//! is being written.
//!
//! Two blocks are in memory at most: one fills from the network while the other is written and
//! fsynced on a thread of its own.

use super::SourceError;
use super::answer::Span;
use crate::staging::{ImageFile, Staged, StagingError};
use crate::verify::VerifiedManifest;
use shared::hex::{Hasher, sha256};
use shared::manifest::Manifest;
use std::io;
use std::sync::Arc;
use tokio::task::{JoinHandle, spawn_blocking};

/// How far a transfer is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// Staged, durable, and of the right digest.
    pub verified: u64,
    /// Came over the network since the [`Download`] was opened.
    pub received: u64,
    /// Of the whole image.
    pub total: u64,
}

/// A staged image and what it still misses.
#[derive(Debug)]
pub struct Download {
    manifest: Arc<Manifest>,
    file: Arc<ImageFile>,
    /// By block: staged with the right digest.
    present: Vec<bool>,
    writing: Option<Writing>,
    received: u64,
}

/// A block on its way to the disk; its buffer comes back.
#[derive(Debug)]
struct Writing {
    index: usize,
    done: JoinHandle<Result<Vec<u8>, StagingError>>,
}

/// A block of the right digest.
#[derive(Debug)]
pub struct Block {
    index: usize,
    bytes: Vec<u8>,
}

impl Download {
    /// Opens the staged image and hashes what is there. Blocks that a crash or a power cut spoilt
    /// count as missing.
    ///
    /// # Errors
    /// The staged image cannot be opened or read.
    pub async fn open(staged: &Staged, manifest: &VerifiedManifest) -> Result<Self, StagingError> {
        let manifest = Arc::new(manifest.manifest().clone());
        let file = Arc::new(staged.open_image(&manifest.file.name)?);
        file.cut(manifest.file.size)?;
        let scanned = {
            let (manifest, file) = (Arc::clone(&manifest), Arc::clone(&file));
            spawn_blocking(move || scan(&manifest, &file)).await
        };
        let present = scanned.map_err(io::Error::other)??;
        Ok(Self { manifest, file, present, writing: None, received: 0 })
    }

    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.present.iter().all(|present| *present)
    }

    #[must_use]
    pub fn transfer(&self) -> Transfer {
        let blocks = (0..).zip(&self.present).filter(|(_, present)| **present);
        Transfer {
            verified: blocks.map(|(index, _)| self.manifest.block_len(index)).sum(),
            received: self.received,
            total: self.manifest.file.size,
        }
    }

    /// The next run of missing blocks.
    pub(super) fn next_span(&self) -> Option<Span> {
        let first = self.present.iter().position(|present| !present)?;
        let run = self.present[first..].iter().take_while(|present| !**present).count();
        let (size, block) = (self.manifest.file.size, self.manifest.block_size);
        let end = ((first + run) as u64 * block).min(size);
        Some(Span { first: first as u64 * block, end, size })
    }

    pub(super) fn assemble(&self, span: Span) -> Assembly {
        let index = span.first / self.manifest.block_size;
        Assembly::new(Arc::clone(&self.manifest), usize::try_from(index).unwrap_or(usize::MAX))
    }

    pub(super) fn count(&mut self, bytes: u64) {
        self.received += bytes;
    }

    /// Has `block` written while the next one fills; waits for the one before. The buffer that is
    /// free then comes back.
    pub(super) async fn keep(&mut self, block: Block) -> Result<Vec<u8>, SourceError> {
        let spare = self.settle().await?.unwrap_or_default();
        let file = Arc::clone(&self.file);
        let offset = block.index as u64 * self.manifest.block_size;
        let write = move || file.write_block(offset, &block.bytes).map(|()| block.bytes);
        self.writing = Some(Writing { index: block.index, done: spawn_blocking(write) });
        Ok(spare)
    }

    /// Waits until the block under way is durable. Safe to drop: the next call goes on waiting.
    pub(super) async fn settle(&mut self) -> Result<Option<Vec<u8>>, SourceError> {
        let Some(writing) = &mut self.writing else { return Ok(None) };
        let (index, written) = (writing.index, (&mut writing.done).await);
        self.writing = None;
        let buffer = written.map_err(|error| StagingError::Io(io::Error::other(error)))??;
        if let Some(present) = self.present.get_mut(index) {
            *present = true;
        }
        Ok(Some(buffer))
    }
}

/// Which blocks of the file have the manifest's digest.
fn scan(manifest: &Manifest, file: &ImageFile) -> Result<Vec<bool>, StagingError> {
    let size = file.size()?;
    let mut buffer = vec![0; usize::try_from(manifest.block_size).unwrap_or(0)];
    let mut present = Vec::with_capacity(manifest.blocks.len());
    for (index, expected) in (0_u64..).zip(&manifest.blocks) {
        let (offset, length) = (index * manifest.block_size, manifest.block_len(index));
        if offset + length > size {
            present.push(false);
            continue;
        }
        let block = &mut buffer[..usize::try_from(length).unwrap_or(0)];
        file.read_block(offset, block)?;
        present.push(sha256(block) == *expected);
    }
    // What was read may be in memory only: a block counts when it is on disk.
    if present.contains(&true) {
        file.sync()?;
    }
    Ok(present)
}

/// The block that fills. Each byte is hashed when it comes, while the cache still has it.
pub struct Assembly {
    manifest: Arc<Manifest>,
    index: usize,
    buffer: Vec<u8>,
    hash: Hasher,
}

impl Assembly {
    fn new(manifest: Arc<Manifest>, index: usize) -> Self {
        Self { manifest, index, buffer: Vec::new(), hash: Hasher::new() }
    }

    /// A buffer to fill next, whatever is in it.
    pub(super) fn reuse(&mut self, buffer: Vec<u8>) {
        debug_assert!(self.buffer.is_empty());
        self.buffer = buffer;
        self.buffer.clear();
    }

    /// Takes from `bytes` what the block still needs, and hands it out when it is whole and right.
    ///
    /// # Errors
    /// Its digest is not the manifest's, or there is no such block.
    pub(super) fn fill(&mut self, bytes: &mut &[u8]) -> Result<Option<Block>, SourceError> {
        let Some(expected) = self.manifest.blocks.get(self.index) else {
            return Err(SourceError::TooLong);
        };
        let length = self.manifest.block_len(self.index as u64);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.buffer.reserve_exact(length - self.buffer.len());
        let (now, later) = bytes.split_at(bytes.len().min(length - self.buffer.len()));
        self.buffer.extend_from_slice(now);
        self.hash.update(now);
        *bytes = later;
        if self.buffer.len() < length {
            return Ok(None);
        }
        if std::mem::take(&mut self.hash).finish() != *expected {
            return Err(SourceError::Block { index: self.index as u64 });
        }
        let block = Block { index: self.index, bytes: std::mem::take(&mut self.buffer) };
        self.index += 1;
        Ok(Some(block))
    }
}
