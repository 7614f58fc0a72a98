//! `parquet` and `focus-parquet`: tables as Apache Parquet, row group by row group.
//!
//! Every column may be null. Text is UTF-8, whole numbers are 64 bits wide, times are microseconds
//! in UTC, decimals `DECIMAL(38, 12)`: what has more places is rounded half to even. A row group is
//! held until it is written; of each one written its place in the file is, until the end.

use std::mem;
use std::sync::Arc;

use parquet::basic::{LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{
    ByteArray, ByteArrayType, FixedLenByteArray, FixedLenByteArrayType, Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::Type;

use super::ExportError;
use super::rows::{Cell, Columns};

/// How much is held, and how long a file gets.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// A row group is written when it has so many rows.
    rows: usize,
    /// Or when its cells have so many bytes as text.
    bytes: usize,
    /// Row groups of a file. What a reader is told of each at the end is kept until then: some
    /// 50 KiB.
    groups: usize,
}

const BOUNDS: Bounds = Bounds {
    rows: 32_768,
    bytes: 16 << 20,
    groups: 1_024,
};

const PRECISION: i32 = 38;
const PLACES: usize = 12;
const DECIMAL_BYTES: usize = 16;

/// A file that is being written.
#[derive(Debug)]
pub(super) struct Sheet {
    bounds: Bounds,
    columns: Columns,
    writer: SerializedFileWriter<Vec<u8>>,
    held: Vec<Cells>,
    rows: usize,
    bytes: usize,
    groups: usize,
}

/// The cells of one column that wait for their row group.
#[derive(Debug)]
struct Cells {
    /// 1 where there is a value, 0 where there is none.
    levels: Vec<i16>,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Whole(Vec<i64>),
    /// In microseconds.
    Time(Vec<i64>),
    /// One behind the other, and where each ends.
    Text(Vec<u8>, Vec<usize>),
    /// One behind the other, each 16 bytes, big-endian.
    Decimal(Vec<u8>),
}

impl Sheet {
    pub(super) fn new(columns: Columns) -> Result<Sheet, ExportError> {
        Sheet::within(BOUNDS, columns)
    }

    fn within(bounds: Bounds, columns: Columns) -> Result<Sheet, ExportError> {
        let fields = columns.iter().map(|column| field(column).map(Arc::new));
        let fields = fields.collect::<Result<Vec<_>, _>>().map_err(broken)?;
        let schema = Type::group_type_builder("charges").with_fields(fields);
        let schema = schema.build().map_err(broken)?;
        let properties = WriterProperties::builder()
            .set_created_by(concat!("farebox ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .build();
        let writer = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties))
            .map_err(broken)?;
        Ok(Sheet {
            bounds,
            columns,
            writer,
            held: columns.iter().map(|(_, kind)| Cells::new(*kind)).collect(),
            rows: 0,
            bytes: 0,
            groups: 0,
        })
    }

    /// Adds a row; writes the row group if that is now full.
    pub(super) fn row<'c>(
        &mut self,
        cells: impl IntoIterator<Item = &'c str>,
        out: &mut Vec<u8>,
    ) -> Result<(), ExportError> {
        let places = self.columns.iter().zip(&mut self.held);
        for ((column, held), cell) in places.zip(cells) {
            self.bytes += cell.len();
            held.push(cell).ok_or_else(|| ExportError::Unfit {
                column: column.0,
                cell: cell.to_owned(),
            })?;
        }
        self.rows += 1;
        if self.rows >= self.bounds.rows || self.bytes >= self.bounds.bytes {
            self.group(out)?;
        }
        Ok(())
    }

    /// Writes the last row group, and what readers begin with.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) -> Result<(), ExportError> {
        if self.rows > 0 {
            self.group(out)?;
        }
        self.writer.finish().map_err(broken)?;
        out.append(self.writer.inner_mut());
        Ok(())
    }

    fn group(&mut self, out: &mut Vec<u8>) -> Result<(), ExportError> {
        let groups = self.bounds.groups;
        if self.groups == groups {
            return Err(ExportError::TooLong { groups });
        }
        self.groups += 1;
        (self.rows, self.bytes) = (0, 0);
        let mut group = self.writer.next_row_group().map_err(broken)?;
        for cells in &mut self.held {
            let column = group.next_column().map_err(broken)?;
            let column = column.ok_or_else(|| broken("the file has fewer columns"))?;
            cells.write(column).map_err(broken)?;
        }
        group.close().map_err(broken)?;
        self.writer.flush().map_err(broken)?;
        out.append(self.writer.inner_mut());
        Ok(())
    }
}

impl Cells {
    fn new(kind: Cell) -> Cells {
        Cells {
            levels: Vec::new(),
            values: match kind {
                Cell::Text => Values::Text(Vec::new(), Vec::new()),
                Cell::Whole => Values::Whole(Vec::new()),
                Cell::Time => Values::Time(Vec::new()),
                Cell::Decimal => Values::Decimal(Vec::new()),
            },
        }
    }

    /// Nothing where the cell is not what the column holds.
    fn push(&mut self, cell: &str) -> Option<()> {
        self.levels.push((!cell.is_empty()).into());
        if cell.is_empty() {
            return Some(());
        }
        match &mut self.values {
            Values::Text(bytes, ends) => {
                bytes.extend_from_slice(cell.as_bytes());
                ends.push(bytes.len());
            }
            Values::Whole(numbers) => numbers.push(cell.parse().ok()?),
            Values::Time(numbers) => {
                let at: jiff::Timestamp = cell.parse().ok()?;
                numbers.push(at.as_microsecond());
            }
            Values::Decimal(bytes) => bytes.extend_from_slice(&scaled(cell)?.to_be_bytes()),
        }
        Some(())
    }

    fn write(&mut self, mut column: SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        let levels = Some(self.levels.as_slice());
        match &mut self.values {
            Values::Text(bytes, ends) => {
                let bytes = ByteArray::from(mem::take(bytes));
                let starts = std::iter::once(&0).chain(ends.iter());
                let texts = starts.zip(ends.iter());
                let texts = texts.map(|(start, end)| bytes.slice(*start, end - start));
                let texts: Vec<ByteArray> = texts.collect();
                column
                    .typed::<ByteArrayType>()
                    .write_batch(&texts, levels, None)?;
                ends.clear();
            }
            Values::Whole(numbers) | Values::Time(numbers) => {
                column
                    .typed::<Int64Type>()
                    .write_batch(numbers, levels, None)?;
                numbers.clear();
            }
            Values::Decimal(bytes) => {
                let bytes = ByteArray::from(mem::take(bytes));
                let starts = (0..bytes.len()).step_by(DECIMAL_BYTES);
                let numbers = starts.map(|start| bytes.slice(start, DECIMAL_BYTES).into());
                let numbers: Vec<FixedLenByteArray> = numbers.collect();
                column
                    .typed::<FixedLenByteArrayType>()
                    .write_batch(&numbers, levels, None)?;
            }
        }
        self.levels.clear();
        column.close()
    }
}

fn field((name, kind): &(&'static str, Cell)) -> Result<Type, ParquetError> {
    let typed = |physical, logical| {
        Type::primitive_type_builder(name, physical)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(logical)
    };
    let places = i32::try_from(PLACES).unwrap_or(0);
    let size = i32::try_from(DECIMAL_BYTES).unwrap_or(0);
    match kind {
        Cell::Text => typed(Physical::BYTE_ARRAY, Some(LogicalType::String)),
        Cell::Whole => typed(Physical::INT64, None),
        Cell::Time => {
            let micros = LogicalType::timestamp(true, TimeUnit::MICROS);
            typed(Physical::INT64, Some(micros))
        }
        Cell::Decimal => {
            let decimal = LogicalType::decimal(places, PRECISION);
            typed(Physical::FIXED_LEN_BYTE_ARRAY, Some(decimal))
                .with_length(size)
                .with_precision(PRECISION)
                .with_scale(places)
        }
    }
    .build()
}

/// A plain decimal in 10^-12, rounded half to even; nothing where it has more than 38 digits.
fn scaled(cell: &str) -> Option<i128> {
    let digits = cell.strip_prefix('-').unwrap_or(cell);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || !(whole.bytes().chain(fraction.bytes())).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (kept, rest) = fraction.split_at(fraction.len().min(PLACES));
    let mut number: i128 = format!("{whole}{kept:0<PLACES$}").parse().ok()?;
    let rest = rest.trim_end_matches('0');
    let up = rest > "5" || (rest == "5" && number % 2 == 1);
    number = number.checked_add(up.into())?;
    let most = 10_i128.checked_pow(PRECISION.unsigned_abs())?;
    let sign = if cell.starts_with('-') { -1 } else { 1 };
    (number < most).then(|| number.saturating_mul(sign))
}

fn broken(error: impl std::fmt::Display) -> ExportError {
    ExportError::Broken {
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests;
