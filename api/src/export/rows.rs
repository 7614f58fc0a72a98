//! Where the rows of a table go: the same cells as CSV, or as the typed columns of a Parquet file.

use super::ExportError;
#[cfg(feature = "parquet")]
use super::parquet::Sheet;
use crate::csv::Table;

/// What a column holds. CSV has all of it as text, and nothing in a cell for null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cell {
    Text,
    /// A whole number below 2^63.
    Whole,
    /// RFC 3339.
    Time,
    Decimal,
}

/// Names and kinds, in order.
pub(super) type Columns = &'static [(&'static str, Cell)];

/// A table that is being written.
#[derive(Debug)]
pub(super) enum Rows {
    Csv(Columns),
    Parquet(Box<Sheet>),
}

impl Rows {
    pub(super) fn parquet(columns: Columns) -> Result<Rows, ExportError> {
        Ok(Rows::Parquet(Box::new(Sheet::new(columns)?)))
    }

    /// What stands before the first row; that of a Parquet file goes out with its first rows.
    pub(super) fn head(&self, out: &mut Vec<u8>) {
        if let Rows::Csv(columns) = self {
            Table::new(out).row(columns.iter().map(|(name, _)| *name));
        }
    }

    /// One row, with a cell for each column.
    pub(super) fn row<'c>(
        &mut self,
        cells: impl IntoIterator<Item = &'c str>,
        out: &mut Vec<u8>,
    ) -> Result<(), ExportError> {
        match self {
            Rows::Csv(_) => {
                Table::new(out).row(cells);
                Ok(())
            }
            Rows::Parquet(sheet) => sheet.row(cells, out),
        }
    }

    /// Writes what is still held, and what stands behind the last row.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) -> Result<(), ExportError> {
        match self {
            Rows::Csv(_) => Ok(()),
            Rows::Parquet(sheet) => sheet.end(out),
        }
    }
}

/// There is none where this is built without the feature.
#[cfg(not(feature = "parquet"))]
#[derive(Debug)]
pub(super) enum Sheet {}

#[cfg(not(feature = "parquet"))]
impl Sheet {
    fn new(_: Columns) -> Result<Sheet, ExportError> {
        Err(ExportError::NotBuilt)
    }

    fn row<'c>(
        &mut self,
        _: impl IntoIterator<Item = &'c str>,
        _: &mut Vec<u8>,
    ) -> Result<(), ExportError> {
        match *self {}
    }

    fn end(&mut self, _: &mut Vec<u8>) -> Result<(), ExportError> {
        match *self {}
    }
}
