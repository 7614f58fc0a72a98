//! What is read back from a Parquet file is what the same export has as CSV; and its bounds.

use actix_web::web::Bytes;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;

use super::*;
use crate::export::tests::{AT, adjustment, bytes, entry};
use crate::export::{Format, focus, lines};

const SMALL: Columns = &[("text", Cell::Text), ("number", Cell::Whole)];

fn reader(file: Vec<u8>) -> SerializedFileReader<Bytes> {
    SerializedFileReader::new(Bytes::from(file)).unwrap()
}

/// Names and values of each row.
fn read(file: Vec<u8>) -> Vec<Vec<(String, Field)>> {
    let reader = reader(file);
    let rows = reader.get_row_iter(None).unwrap();
    let row = |row: parquet::record::Row| {
        let cells = row.get_column_iter();
        let cells = cells.map(|(name, field)| (name.clone(), field.clone()));
        cells.collect()
    };
    rows.map(|found| row(found.unwrap())).collect()
}

/// A value as the cell of a table has it.
fn shown(field: &Field) -> String {
    match field {
        Field::Null => String::new(),
        Field::Str(text) => text.clone(),
        Field::Long(number) => number.to_string(),
        Field::TimestampMicros(at) => {
            let at = jiff::Timestamp::from_microsecond(*at).unwrap();
            at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
        }
        Field::Decimal(decimal) => {
            assert_eq!((decimal.precision(), decimal.scale()), (38, 12));
            i128::from_be_bytes(decimal.data().try_into().unwrap()).to_string()
        }
        other => panic!("unexpected {other:?}"),
    }
}

/// A cell of CSV in the same form.
fn told(cell: &str, kind: Cell) -> String {
    let cell = cell.strip_prefix('\'').unwrap_or(cell);
    match kind {
        _ if cell.is_empty() => String::new(),
        Cell::Decimal => scaled(cell).unwrap().to_string(),
        Cell::Time => {
            let at: jiff::Timestamp = cell.parse().unwrap();
            at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
        }
        Cell::Text | Cell::Whole => cell.to_owned(),
    }
}

#[test]
fn a_parquet_file_has_what_the_csv_of_the_same_export_has() {
    let mut entries = vec![entry(7, AT), adjustment(8, true), adjustment(9, false)];
    entries.extend((10..400).map(|seq| entry(seq, AT + i64::from(u32::try_from(seq).unwrap()))));
    for (table, parquet, columns) in [
        (Format::Csv, Format::Parquet, lines::COLUMNS),
        (Format::Focus, Format::FocusParquet, focus::COLUMNS),
    ] {
        let csv = bytes(table, &entries);
        let mut csv = csv::Reader::from_reader(csv.as_slice());
        let csv: Vec<_> = csv.records().map(Result::unwrap).collect();
        let rows = read(bytes(parquet, &entries));
        assert_eq!(rows.len(), csv.len());
        assert!(rows.len() >= 8);
        for (row, line) in rows.iter().zip(&csv) {
            assert_eq!(row.len(), columns.len());
            for (((name, value), cell), (column, kind)) in row.iter().zip(line).zip(columns) {
                assert_eq!(name, column);
                assert_eq!(shown(value), told(cell, *kind), "{name} in {line:?}");
            }
        }
        // The formula that CSV disarms is the tenant's own word here.
        let own = |(_, value): &(String, Field)| shown(value) == "=goodwill; \"a|b\"";
        assert!(rows.iter().flatten().any(own));
    }
}

#[test]
fn columns_are_typed() {
    let file = reader(bytes(Format::FocusParquet, &[entry(7, AT)]));
    let schema = file.metadata().file_metadata().schema_descr();
    let of = |name: &str| {
        let columns = schema.columns().iter();
        let mut named = columns.filter(|column| column.name() == name);
        named.next().unwrap().logical_type_ref().cloned()
    };
    assert_eq!(of("BilledCost"), Some(LogicalType::decimal(12, 38)));
    assert_eq!(of("PricingQuantity"), Some(LogicalType::decimal(12, 38)));
    let micros = LogicalType::timestamp(true, TimeUnit::MICROS);
    assert_eq!(of("ChargePeriodStart"), Some(micros));
    assert_eq!(of("Tags"), Some(LogicalType::String));
    assert_eq!(of("x_Through"), None);
}

#[test]
fn an_export_of_nothing_is_a_file() {
    let file = reader(bytes(Format::Parquet, &[]));
    assert_eq!(file.metadata().file_metadata().num_rows(), 0);
    assert_eq!(file.num_row_groups(), 0);
}

#[test]
fn a_row_group_is_written_when_it_is_full_and_a_file_has_so_many() {
    let bounds = Bounds {
        rows: 10,
        bytes: 1_000,
        groups: 3,
    };
    let mut sheet = Sheet::within(bounds, SMALL).unwrap();
    let mut out = Vec::new();
    for n in 0..10 {
        assert!(out.is_empty(), "row {n}");
        sheet.row(["a", &n.to_string()], &mut out).unwrap();
    }
    let first = out.len();
    assert!(first > 0);
    let long = "x".repeat(600);
    sheet.row([long.as_str(), ""], &mut out).unwrap();
    assert_eq!(out.len(), first);
    sheet.row([long.as_str(), "1"], &mut out).unwrap();
    assert!(out.len() > first);
    sheet.row(["", "-9223372036854775808"], &mut out).unwrap();
    let mut whole = out.clone();
    sheet.end(&mut whole).unwrap();
    let file = reader(whole.clone());
    let groups = file.metadata().row_groups().iter();
    let rows: Vec<i64> = groups.map(|group| group.num_rows()).collect();
    assert_eq!(rows, [10, 2, 1]);
    let last = read(whole).pop().unwrap();
    assert_eq!(
        (&last[0].1, &last[1].1),
        (&Field::Null, &Field::Long(i64::MIN))
    );

    let mut sheet = Sheet::within(bounds, SMALL).unwrap();
    for n in 0..39 {
        sheet.row(["a", &n.to_string()], &mut out).unwrap();
    }
    let full = sheet.row(["a", "39"], &mut out);
    assert_eq!(full, Err(ExportError::TooLong { groups: 3 }));
}

#[test]
fn what_a_column_cannot_hold_is_told() {
    let mut sheet = Sheet::new(SMALL).unwrap();
    let refused = sheet.row(["a", "9223372036854775808"], &mut Vec::new());
    let unfit = ExportError::Unfit {
        column: "number",
        cell: "9223372036854775808".to_owned(),
    };
    assert_eq!(refused, Err(unfit));
}

#[test]
fn decimals_are_rounded_half_to_even_at_the_twelfth_place() {
    for (cell, number) in [
        ("0", 0),
        ("1", 1_000_000_000_000),
        ("-0.5", -500_000_000_000),
        ("0.000000000001", 1),
        ("0.0000000000005", 0),
        ("0.0000000000015", 2),
        ("0.0000000000025", 2),
        ("0.00000000000250000000000000001", 3),
        ("0.00000000000049999999", 0),
        ("-0.00000000000351", -4),
        ("0.9999999999999", 1_000_000_000_000),
        (
            "99999999999999999999999999.999999999999",
            10_i128.pow(38) - 1,
        ),
    ] {
        assert_eq!(scaled(cell), Some(number), "{cell}");
    }
    for cell in [
        "",
        "-",
        ".5",
        "1e3",
        "+1",
        "1.2.3",
        "100000000000000000000000000",
        "99999999999999999999999999.9999999999995",
    ] {
        assert_eq!(scaled(cell), None, "{cell}");
    }
}
