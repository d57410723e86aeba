//! What a power cut leaves of a router's flash: the shadow that the shim kept, and of everything
//! that was not synced a part that chance decides.
//!
//! | not synced | after the cut |
//! |---|---|
//! | bytes of a file | each sector of 512 bytes old or new, the length old, new or between |
//! | a name: made, replaced or removed | as before or as after; a rename wholly or not at all |
//!
//! Names are durable with their directory's fsync alone, which is less than ext4 gives and what
//! POSIX promises.

use crate::random::Random;
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::{self, ErrorKind},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

const SECTOR: usize = 512;

/// A router's flash: the directories of it that hold what must survive.
#[derive(Debug, Clone)]
pub struct Flash {
    root: PathBuf,
    shadow: PathBuf,
}

/// Directories below the root that are on flash.
const TREES: [&str; 2] = ["state", "staging"];

/// Inode and time of birth.
type Key = String;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    key: Key,
    directory: bool,
}

type Names = BTreeMap<String, Entry>;

/// What is there now.
#[derive(Debug, Default)]
struct Live {
    names: HashMap<Key, Names>,
    bytes: HashMap<Key, Vec<u8>>,
}

/// What was decided to be left.
#[derive(Debug, PartialEq, Eq)]
enum Node {
    File(Vec<u8>),
    Directory(BTreeMap<String, Node>),
}

/// How much chance had to decide.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loss {
    pub names: u32,
    pub files: u32,
}

impl Flash {
    #[must_use]
    pub fn new(root: &Path, lab: &Path) -> Self {
        Self { root: root.to_owned(), shadow: lab.join("shadow") }
    }

    /// Whatever is there now is durable.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn settle(&self) -> io::Result<()> {
        if self.shadow.exists() {
            fs::remove_dir_all(&self.shadow)?;
        }
        fs::create_dir_all(&self.shadow)?;
        let (root, live) = self.live()?;
        for (key, names) in &live.names {
            let line = |(name, e): (&String, &Entry)| {
                format!("{} {} {name}\n", e.key, if e.directory { 'd' } else { 'f' })
            };
            let listing: String = names.iter().map(line).collect();
            fs::write(self.shadow.join(format!("d-{key}")), listing)?;
        }
        for (key, bytes) in &live.bytes {
            fs::write(self.shadow.join(format!("f-{key}")), bytes)?;
        }
        debug_assert!(live.names.contains_key(&root));
        Ok(())
    }

    /// The power fails: nobody writes any more, and what is left is in place, all of it durable.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn cut(&self, random: &mut Random) -> io::Result<Loss> {
        let (root, live) = self.live()?;
        let mut crash = Crash {
            shadow: &self.shadow,
            live: &live,
            random,
            sides: HashMap::new(),
            loss: Loss::default(),
        };
        let left = crash.directory(&root)?;
        let loss = crash.loss;
        for tree in TREES {
            remove_tree(&self.root.join(tree))?;
        }
        for (name, node) in &left {
            if TREES.contains(&name.as_str()) {
                write(&self.root.join(name), node)?;
            }
        }
        self.settle()?;
        Ok(loss)
    }

    /// The root's key, and everything in the trees.
    fn live(&self) -> io::Result<(Key, Live)> {
        let mut live = Live::default();
        let root = key(&self.root)?;
        let mut names = Names::new();
        for tree in TREES {
            let path = self.root.join(tree);
            match key(&path) {
                Ok(key) => {
                    names.insert(tree.to_owned(), Entry { key, directory: true });
                    live.walk(&path)?;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        live.names.insert(root.clone(), names);
        Ok((root, live))
    }
}

impl Live {
    fn walk(&mut self, directory: &Path) -> io::Result<()> {
        let mut names = Names::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let entry = Entry { key: key(&path)?, directory: path.is_dir() };
            if entry.directory {
                self.walk(&path)?;
            } else {
                self.bytes.insert(entry.key.clone(), fs::read(&path)?);
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            names.insert(name, entry);
        }
        self.names.insert(key(directory)?, names);
        Ok(())
    }
}

struct Crash<'a> {
    shadow: &'a Path,
    live: &'a Live,
    random: &'a mut Random,
    /// Of each file or directory whose name changed: whether the change was kept.
    sides: HashMap<Key, bool>,
    loss: Loss,
}

impl Crash<'_> {
    fn directory(&mut self, key: &str) -> io::Result<BTreeMap<String, Node>> {
        let durable = self.durable_names(key)?;
        let now = self.live.names.get(key).cloned().unwrap_or_else(|| durable.clone());
        let mut all: Vec<&String> = durable.keys().chain(now.keys()).collect();
        all.sort();
        all.dedup();
        let mut left = BTreeMap::new();
        for name in all {
            let (before, after) = (durable.get(name), now.get(name));
            let same = before.map(|e| &e.key) == after.map(|e| &e.key);
            let kept = if same || self.side(before, after) { after } else { before };
            if let Some(entry) = kept {
                let node = if entry.directory {
                    Node::Directory(self.directory(&entry.key)?)
                } else {
                    Node::File(self.file(&entry.key)?)
                };
                left.insert(name.clone(), node);
            }
        }
        Ok(left)
    }

    /// One coin for both ends of a rename.
    fn side(&mut self, before: Option<&Entry>, after: Option<&Entry>) -> bool {
        let keys: Vec<&Key> = before.into_iter().chain(after).map(|entry| &entry.key).collect();
        let known = keys.iter().find_map(|key| self.sides.get(*key).copied());
        let side = known.unwrap_or_else(|| {
            self.loss.names += 1;
            self.random.chance(50)
        });
        for key in keys {
            self.sides.insert(key.clone(), side);
        }
        side
    }

    fn file(&mut self, key: &str) -> io::Result<Vec<u8>> {
        let durable = match fs::read(self.shadow.join(format!("f-{key}"))) {
            Ok(bytes) => bytes,
            // Its name was synced and it never was.
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        match self.live.bytes.get(key) {
            Some(now) if *now != durable => {
                self.loss.files += 1;
                Ok(tear(&durable, now, self.random))
            }
            _ => Ok(durable),
        }
    }

    /// Nothing, for a directory that was never synced.
    fn durable_names(&self, key: &str) -> io::Result<Names> {
        let text = match fs::read_to_string(self.shadow.join(format!("d-{key}"))) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let entry = |line: &str| {
            let mut fields = line.splitn(3, ' ');
            let (key, kind, name) = (fields.next()?, fields.next()?, fields.next()?);
            Some((name.to_owned(), Entry { key: key.to_owned(), directory: kind == "d" }))
        };
        Ok(text.lines().filter_map(entry).collect())
    }
}

/// A third each: all of it lost, all of it kept, some sectors of it.
fn tear(before: &[u8], after: &[u8], random: &mut Random) -> Vec<u8> {
    match random.below(3) {
        0 => return before.to_vec(),
        1 => return after.to_vec(),
        _ => {}
    }
    let (short, long) = (before.len().min(after.len()), before.len().max(after.len()));
    let length = match random.below(3) {
        0 => before.len(),
        1 => after.len(),
        _ => {
            let sectors = (long - short) / SECTOR + 1;
            let some = usize::try_from(random.below(sectors as u64)).unwrap_or(0);
            short + some * SECTOR
        }
    };
    let mut torn = vec![0; length];
    for (index, sector) in torn.chunks_mut(SECTOR).enumerate() {
        let source = if random.chance(50) { after } else { before };
        let rest = source.get(index * SECTOR..).unwrap_or_default();
        let count = rest.len().min(sector.len());
        sector[..count].copy_from_slice(&rest[..count]);
    }
    torn
}

fn key(path: &Path) -> io::Result<Key> {
    let metadata = fs::symlink_metadata(path)?;
    let born = metadata.created()?.duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    Ok(format!("{}-{}-{}", metadata.ino(), born.as_secs(), born.subsec_nanos()))
}

fn write(path: &Path, node: &Node) -> io::Result<()> {
    match node {
        Node::File(bytes) => {
            fs::write(path, bytes)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        }
        Node::Directory(entries) => {
            fs::create_dir(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
            entries.iter().try_for_each(|(name, node)| write(&path.join(name), node))
        }
    }
}

/// Removes a directory that may not be there.
///
/// # Errors
/// Whatever else the file system says.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Router(tempfile::TempDir);

    impl Router {
        fn new() -> (Self, Flash) {
            let router = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(router.path("state")).unwrap();
            let flash = Flash::new(router.0.path(), &router.path("lab"));
            (router, flash)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }
    }

    /// Everything that a file is found to be after the same cut, by chance.
    fn outcomes(change: impl Fn(&Path), name: &str) -> Vec<Option<Vec<u8>>> {
        let mut seen = Vec::new();
        for seed in 0..60 {
            let (router, flash) = Router::new();
            fs::write(router.path("state/a"), b"old").unwrap();
            flash.settle().unwrap();
            change(&router.path("state"));
            flash.cut(&mut Random::new(seed)).unwrap();
            let found = fs::read(router.path("state").join(name)).ok();
            if !seen.contains(&found) {
                seen.push(found);
            }
        }
        seen.sort();
        seen
    }

    #[test]
    fn what_was_settled_stays() {
        assert_eq!(outcomes(|_| {}, "a"), [Some(b"old".to_vec())]);
    }

    #[test]
    fn a_name_that_was_not_synced_is_there_or_not() {
        let found = outcomes(|state| fs::write(state.join("b"), b"new").unwrap(), "b");
        assert_eq!(found, [None, Some(vec![]), Some(vec![0; 3]), Some(b"new".to_vec())]);
    }

    #[test]
    fn a_rename_is_whole() {
        let replace = |state: &Path| {
            fs::write(state.join("t"), b"new").unwrap();
            fs::rename(state.join("t"), state.join("a")).unwrap();
        };
        // Not synced, so that what replaces it may be nothing: that is why one syncs first.
        let found = outcomes(replace, "a");
        assert!(found.contains(&Some(b"old".to_vec())) && found.contains(&Some(b"new".to_vec())));
        assert!(!found.contains(&None));
        let moved = |state: &Path| fs::rename(state.join("a"), state.join("b")).unwrap();
        for seed in 0..20 {
            let (router, flash) = Router::new();
            fs::write(router.path("state/a"), b"old").unwrap();
            flash.settle().unwrap();
            moved(&router.path("state"));
            flash.cut(&mut Random::new(seed)).unwrap();
            assert!(router.path("state/a").exists() != router.path("state/b").exists());
        }
    }

    #[test]
    fn an_overwritten_file_is_torn_at_sectors() {
        let mut random = Random::new(1);
        let (old, new) = (vec![1; 4 * SECTOR], vec![2; 6 * SECTOR]);
        let torn: Vec<_> = (0..100).map(|_| tear(&old, &new, &mut random)).collect();
        assert!(torn.contains(&old) && torn.contains(&new));
        let mixed = |t: &&Vec<u8>| t.contains(&1) && t.contains(&2);
        assert!(torn.iter().filter(mixed).count() > 10);
        let whole = |t: &Vec<u8>| t.chunks(SECTOR).all(|s| s.iter().all(|b| *b == s[0]));
        assert!(torn.iter().all(whole));
    }

    #[test]
    fn a_directory_that_was_not_synced_goes_with_all_it_holds() {
        let mut gone = 0;
        for seed in 0..40 {
            let (router, flash) = Router::new();
            flash.settle().unwrap();
            fs::create_dir(router.path("state/main")).unwrap();
            fs::write(router.path("state/main/journal"), b"x").unwrap();
            flash.cut(&mut Random::new(seed)).unwrap();
            gone += u32::from(!router.path("state/main").exists());
        }
        assert!((5..35).contains(&gone), "{gone} of 40");
    }
}
