//! The tables of records and of the journals in the embedded store. They are made by the first write; files of before do not have them.

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, TableError, WriteTransaction};

use super::trouble::Trouble;
use crate::store::{Append, Archive, Entry, RecordWrite, Ring, StoreError};

/// Key → record.
const RECORDS: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("records");
/// Number → entry, of what was done.
const DONE: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("journal");
/// Number → entry, of what was refused.
const REFUSED: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("journal-refused");
/// Number → entry, of what others say that they have refused.
const REPORTED: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("journal-reported");

/// Where a journal stands.
fn table(ring: Ring) -> TableDefinition<'static, u64, &'static [u8]> {
    match ring {
        Ring::Done => DONE,
        Ring::Refused => REFUSED,
        Ring::Reported => REPORTED,
    }
}

/// Carries out writes and appends entries, when what they require is so; in each journal the oldest entries beyond what it keeps go.
pub(super) fn write(
    txn: &WriteTransaction,
    writes: &[RecordWrite],
    entries: &[Append],
) -> Result<Result<(), StoreError>, Trouble> {
    let mut records = txn.open_table(RECORDS)?;
    for write in writes {
        if let RecordWrite::Require(key, expected) = write
            && records.get(key.as_str())?.map(|value| value.value().to_vec()) != *expected
        {
            return Ok(Err(StoreError::Changed(key.clone())));
        }
    }
    for write in writes {
        match write {
            RecordWrite::Set(key, value) => drop(records.insert(key.as_str(), value.as_slice())?),
            RecordWrite::Remove(key) => drop(records.remove(key.as_str())?),
            RecordWrite::Withdraw(key, value) => {
                if records.get(key.as_str())?.is_some_and(|there| there.value() == value.as_slice()) {
                    records.remove(key.as_str())?;
                }
            }
            RecordWrite::Raise(key, number) => {
                let there = records.get(key.as_str())?.and_then(|value| value.value().try_into().ok().map(u64::from_be_bytes));
                let raised = there.unwrap_or(0).max(*number).to_be_bytes();
                records.insert(key.as_str(), raised.as_slice())?;
            }
            RecordWrite::Require(..) => {}
        }
    }
    let mut last = 0;
    for ring in Ring::ALL {
        last = txn.open_table(table(ring))?.last()?.map_or(0, |(number, _)| number.value()).max(last);
    }
    for (number, entry) in (last + 1..).zip(entries) {
        let mut journal = txn.open_table(table(entry.ring))?;
        journal.insert(number, entry.body.as_slice())?;
        while journal.len()? > entry.keep {
            journal.pop_first()?;
        }
    }
    Ok(Ok(()))
}

/// Puts the records and the journal of an archive into tables that are empty.
pub(super) fn restore(txn: &WriteTransaction, archive: &Archive) -> Result<(), Trouble> {
    let mut records = txn.open_table(RECORDS)?;
    for (key, value) in &archive.records {
        records.insert(key.as_str(), value.as_slice())?;
    }
    for (ring, entry) in archive.entries() {
        txn.open_table(table(ring))?.insert(entry.number, entry.body.as_slice())?;
    }
    Ok(())
}

/// All records.
pub(super) fn all(txn: &ReadTransaction) -> Result<Vec<(String, Vec<u8>)>, Trouble> {
    let table = match txn.open_table(RECORDS) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        table => table?,
    };
    let mut found = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        found.push((key.value().to_owned(), value.value().to_vec()));
    }
    Ok(found)
}

/// Entries before a number, newest first.
pub(super) fn journal(txn: &ReadTransaction, ring: Ring, before: u64, limit: usize) -> Result<Vec<Entry>, Trouble> {
    let table = match txn.open_table(table(ring)) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        table => table?,
    };
    let mut found = Vec::new();
    for entry in table.range(..before)?.rev().take(limit) {
        let (number, body) = entry?;
        found.push(Entry { number: number.value(), body: body.value().to_vec() });
    }
    Ok(found)
}
