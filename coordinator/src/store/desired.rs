//! What is desired of a device: its unfinished operations, as jobs.

use rusqlite::{Connection, OptionalExtension};
use shared::desired::{Desired, ImageRef, Job, REQUIRED, VERSION};
use shared::hex::{Sha256, sha256};
use shared::ids::{DeviceId, ImageId};

use super::column::parsed;
use super::operation::MAY_RECOVER;
use super::{Store, StoreError, device, operation};
use crate::operation::{Operation, options};

/// An image as a device may fetch it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobImage {
    pub sha256: Sha256,
    /// Bytes.
    pub size: u64,
    /// The exact signed bytes.
    pub manifest: Vec<u8>,
    /// Signify text.
    pub signature: String,
}

impl Store {
    /// What is desired of the device; None if that is still generation `known`.
    pub async fn desired(
        &self,
        device: DeviceId,
        known: Option<String>,
    ) -> Result<Option<Desired>, StoreError> {
        let time = self.clock().now();
        self.read(move |conn| {
            let generation = generation(conn, device)?;
            if known.as_deref() == Some(&generation) {
                return Ok(None);
            }
            Ok(Some(Desired { v: VERSION, generation, time, jobs: jobs(conn, device)? }))
        })
        .await
    }

    /// The image, if the device has a job with it, or had one that was given up: its modem may be in
    /// download mode, with nothing but this image to bring it back.
    pub async fn job_image(
        &self,
        device: DeviceId,
        image: ImageId,
    ) -> Result<Option<JobImage>, StoreError> {
        self.read(move |conn| {
            let sql = format!(
                "SELECT i.sha256, i.size, i.manifest, i.signature FROM images i
                 WHERE i.id = ?2 AND i.manifest IS NOT NULL AND EXISTS (
                     SELECT 1 FROM operations p WHERE p.device = ?1 AND +p.image = i.id
                         AND ((+p.status IN ('idle', 'in-progress') AND NOT p.held)
                              OR {MAY_RECOVER}))"
            );
            let found = conn
                .prepare_cached(&sql)?
                .query_row((device.to_string(), image.to_string()), |row| {
                    Ok(JobImage {
                        sha256: parsed(row, "sha256")?,
                        size: row.get("size")?,
                        manifest: row.get("manifest")?,
                        signature: row.get("signature")?,
                    })
                })
                .optional()?;
            Ok(found)
        })
        .await
    }
}

/// Opaque to devices, equal means unchanged: the epoch is another one after a restore.
fn generation(conn: &Connection, device: DeviceId) -> rusqlite::Result<String> {
    conn.prepare_cached(
        "SELECT (SELECT epoch FROM meta) || '.' || generation FROM devices WHERE id = ?1",
    )?
    .query_row([device.to_string()], |row| row.get(0))
}

fn jobs(conn: &Connection, device: DeviceId) -> rusqlite::Result<Vec<Job>> {
    // Two boards' jobs stay listed, for whoever finds a job gone takes it for withdrawn and ends it.
    // The grant holds them.
    let held = match device::standing(conn, device)? {
        Some(standing) => standing.deactivated || !standing.accepted,
        None => true,
    };
    let mut jobs = Vec::new();
    for operation in operation::wanted_of(conn, device)? {
        // What was granted stays listed: the device has to finish it.
        if !operation.is_wanted() || (held && !operation.is_granted()) {
            continue;
        }
        jobs.extend(job(conn, operation)?);
    }
    Ok(jobs)
}

fn job(conn: &Connection, operation: Operation) -> rusqlite::Result<Option<Job>> {
    let Some(image) = operation.image else { return Ok(None) };
    let Some(image) = image_ref(conn, image)? else { return Ok(None) };
    // They were read when the operation was made.
    let tool = options::read(&operation.upgrade_options).unwrap_or_default().tool;
    Ok(Some(Job {
        operation: operation.id,
        slot: operation.slot,
        image,
        requires: REQUIRED.iter().map(|&name| name.to_owned()).collect(),
        options: tool,
        deadline: operation.deadline,
        allow_volatile_staging: operation.allow_volatile_staging,
    }))
}

fn image_ref(conn: &Connection, id: ImageId) -> rusqlite::Result<Option<ImageRef>> {
    conn.prepare_cached(
        "SELECT size, sha256, manifest FROM images WHERE id = ?1 AND manifest IS NOT NULL",
    )?
    .query_row([id.to_string()], |row| {
        Ok(ImageRef {
            id,
            size: row.get("size")?,
            sha256: parsed(row, "sha256")?,
            manifest_sha256: sha256(row.get_ref("manifest")?.as_blob()?),
        })
    })
    .optional()
}
