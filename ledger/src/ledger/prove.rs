//! Proofs about the entries: the tree as it is read back from the journal, and what shows that an
//! entry is in it and that it only ever grew.

use std::sync::PoisonError;

use super::Ledger;
use crate::entries;
use crate::entry::Entry;
use crate::error::{Error, Fault, QueryError};
use crate::journal::{Position, segment};
use crate::merkle::{self, Frontier, Hash, check, proof};
use crate::query::Head;
use crate::shared::Shared;
use crate::tree::Tree;

/// What shows that an entry is one of the first `size`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inclusion {
    /// The entry.
    pub entry: Entry,
    /// Its bytes as they are stored: what the tree hashes.
    pub bytes: Vec<u8>,
    /// SHA-256 of a zero byte and those: the leaf.
    pub leaf: [u8; 32],
    /// How many entries the tree has.
    pub size: u64,
    /// The root over them.
    pub root: [u8; 32],
    /// RFC 6962 audit path, from the leaf upwards. The leaf's index is the entry's number less 1.
    pub path: Vec<[u8; 32]>,
}

/// What shows that the tree over `from` entries is the beginning of the one over `to`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Consistency {
    /// Size of the older tree.
    pub from: u64,
    /// Its root.
    pub from_root: [u8; 32],
    /// Size of the newer tree.
    pub to: u64,
    /// Its root.
    pub to_root: [u8; 32],
    /// RFC 6962 consistency proof.
    pub path: Vec<[u8; 32]>,
}

impl Ledger {
    /// The ledger's own name: a number drawn at random when its journal was begun.
    pub fn id(&self) -> u64 {
        self.inner.shared.view().ledger
    }

    /// An entry by its number.
    ///
    /// # Errors
    /// [`QueryError::Read`].
    pub fn entry(&self, seq: u64) -> Result<Option<Entry>, QueryError> {
        Ok(entries::stored(&self.inner.shared, seq)?.map(|(_, entry)| entry))
    }

    /// Reads everything that is durable back from the journal, hashes it, and says what it comes
    /// to: the head that may be signed. What was read before is not read again.
    ///
    /// # Errors
    /// [`Error::Corrupt`] within [`QueryError::Read`] if the journal on the disk is not what was
    /// recorded.
    pub fn read_back(&self) -> Result<Head, QueryError> {
        let shared = &self.inner.shared;
        with_tree(shared, |tree| {
            let (end, frontier, lsn) = durable(shared);
            tree.catch_up(&shared.options.dir, end)?;
            if *tree.frontier() != frontier {
                return Err(differs(end, &frontier));
            }
            tree.save()?;
            let (size, root) = (frontier.size(), frontier.root());
            Ok(Head { size, root, lsn })
        })
    }

    /// The root over the first `size` entries.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] for `size` beyond the durable entries.
    pub fn root_at(&self, size: u64) -> Result<[u8; 32], QueryError> {
        let shared = &self.inner.shared;
        with_tree(shared, |tree| {
            reach(shared, tree, "size", size)?;
            root(tree, size)
        })
    }

    /// Shows that entry `seq` is in the tree over the first `size` entries; `None` if there is no
    /// such entry. The proof has been checked against the entry as it is stored.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] for a `size` that lacks the entry, or that is not durable.
    pub fn prove_entry(&self, seq: u64, size: u64) -> Result<Option<Inclusion>, QueryError> {
        let shared = &self.inner.shared;
        let Some((bytes, entry)) = entries::stored(shared, seq)? else {
            return Ok(None);
        };
        if seq > size {
            return Err(invalid(
                "size",
                format!("must be at least {seq}, the entry"),
            ));
        }
        let leaf = merkle::leaf(&bytes);
        with_tree(shared, |tree| {
            reach(shared, tree, "size", size)?;
            let (root, path) = (root(tree, size)?, proof::inclusion(tree, seq - 1, size)?);
            if !check::inclusion(&leaf, seq - 1, size, &path, &root) {
                return Err(untrue(seq));
            }
            Ok((root, path))
        })
        .map(|(root, path)| {
            Some(Inclusion {
                entry,
                bytes,
                leaf,
                size,
                root,
                path,
            })
        })
    }

    /// Shows that the tree over the first `from` entries is the beginning of the one over the first
    /// `to`. The proof has been checked.
    ///
    /// # Errors
    /// [`QueryError::Invalid`] unless 1 <= `from` <= `to` <= the durable entries.
    pub fn prove_growth(&self, from: u64, to: u64) -> Result<Consistency, QueryError> {
        if from == 0 || from > to {
            let fault = format!("must be from 1 to {to}, the newer tree's size");
            return Err(invalid("from", fault));
        }
        let shared = &self.inner.shared;
        with_tree(shared, |tree| {
            reach(shared, tree, "to", to)?;
            let (from_root, to_root) = (root(tree, from)?, root(tree, to)?);
            let path = proof::consistency(tree, from, to)?;
            if !check::consistency((from, &from_root), (to, &to_root), &path) {
                return Err(untrue(from));
            }
            Ok(Consistency {
                from,
                from_root,
                to,
                to_root,
                path,
            })
        })
    }
}

/// Where the durable frames end, and the tree over them as commands were answered by it.
fn durable(shared: &Shared) -> (Position, Frontier, u64) {
    let view = shared.fresh_view();
    (view.position, view.frontier.clone(), view.state.lsn)
}

/// Does something with the stored tree. If that shows the files to be wrong, they are made again
/// from the journal, once.
fn with_tree<T>(
    shared: &Shared,
    work: impl Fn(&mut Tree) -> Result<T, QueryError>,
) -> Result<T, QueryError> {
    let mut kept = shared.tree.lock().unwrap_or_else(PoisonError::into_inner);
    let mut again = true;
    loop {
        let mut tree = match kept.take() {
            Some(tree) => tree,
            None => open(shared)?,
        };
        match work(&mut tree) {
            Err(error @ QueryError::Read(Error::Corrupt { .. })) if again => {
                tracing::warn!(cause = ?error, "the stored tree is made again from the journal");
                drop(tree);
                Tree::remove(&shared.options.dir)?;
                again = false;
            }
            // A file that could not be written or read: what is in memory may not be in it.
            Err(error @ QueryError::Read(_)) => return Err(error),
            done => {
                *kept = Some(tree);
                return done;
            }
        }
    }
}

fn open(shared: &Shared) -> Result<Tree, QueryError> {
    let ledger = shared.view().ledger;
    let first = Position {
        segment: segment::list(&shared.options.dir)?
            .first()
            .copied()
            .unwrap_or(1),
        offset: segment::HEADER,
    };
    Ok(Tree::open(&shared.options.dir, ledger, first)?)
}

/// Makes sure that the tree has `size` entries, if they are durable.
fn reach(
    shared: &Shared,
    tree: &mut Tree,
    field: &'static str,
    size: u64,
) -> Result<(), QueryError> {
    if size > tree.size() {
        let (end, frontier, _) = durable(shared);
        if size > frontier.size() {
            let fault = format!("is beyond the {} entries there are", frontier.size());
            return Err(invalid(field, fault));
        }
        tree.catch_up(&shared.options.dir, end)?;
        if *tree.frontier() != frontier {
            return Err(differs(end, &frontier));
        }
    }
    Ok(())
}

/// The root over the first `size` entries, shown to be of the tree whose right edge is in memory.
fn root(tree: &Tree, size: u64) -> Result<Hash, QueryError> {
    if size == 0 {
        return Ok(Frontier::default().root());
    }
    let now = (tree.size(), &tree.frontier().root());
    let root = proof::root(tree, size)?;
    let path = proof::consistency(tree, size, tree.size())?;
    if check::consistency((size, &root), now, &path) {
        Ok(root)
    } else {
        Err(untrue(size))
    }
}

fn invalid(field: &'static str, fault: String) -> QueryError {
    QueryError::Invalid { field, fault }
}

fn differs(end: Position, frontier: &Frontier) -> QueryError {
    let what = "what the journal holds up to here is not what was recorded: farebox ledger verify";
    corrupt(end, frontier.size(), what)
}

fn untrue(seq: u64) -> QueryError {
    let nowhere = Position {
        segment: 0,
        offset: 0,
    };
    corrupt(nowhere, seq, "its proof does not hold")
}

fn corrupt(at: Position, seq: u64, what: &str) -> QueryError {
    let fault = Fault {
        segment: at.segment,
        offset: at.offset,
        lsn: 0,
        seq,
        what: what.to_owned(),
    };
    QueryError::Read(Error::Corrupt { fault })
}

#[cfg(test)]
mod tests;
