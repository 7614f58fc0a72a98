//! Each format, byte for byte, on a small ledger; and that nothing is lost where sums are written.

use std::sync::Arc;

use ledger::{
    Ceiling, Charge, ChargeLine, Funding, Hold, Id, Meter, Model, Money, Only, Party, Period,
    Price, Quantities, Settled,
};

use super::*;

/// 2026-11-30T23:59:59.5Z
pub(super) const AT: i64 = 1_796_083_199_500_000;

fn line(meter: Meter, quantity: u128, rate: i128, amount: i128) -> ChargeLine {
    let (unit_size, rate, amount) = (meter.unit_size(), Money(rate), Money(amount));
    ChargeLine {
        meter,
        tier: 0,
        quantity,
        unit_size,
        rate,
        amount,
    }
}

/// A run of 1,234,567 us of CPU, and the worked example's charge.
pub(super) fn entry(seq: u64, opened_at: i64) -> Entry {
    let ceiling = Ceiling {
        cpu_ms: 5_000,
        wall_ms: 5_000,
        cpu_millis: 1_000,
        memory_bytes: 256 << 20,
    };
    let hold = Hold {
        id: Id([1; 16]),
        execution: Id([2; 16]),
        tenant: "acme".to_owned(),
        project: "web_1".to_owned(),
        function: None,
        key: "jti".to_owned(),
        image: "python@sha256:ab".to_owned(),
        tags: vec![("cost_center".to_owned(), "=4,\"2".to_owned())],
        granted: ceiling,
        reduced: false,
        quantities: ceiling.quantities().unwrap(),
        amount: Money(1),
        rate_card: 3,
        opened_at,
        idempotency: None,
    };
    let lines = vec![
        line(Meter::Executions, 1, 200_000, 200_000),
        line(Meter::CpuUs, 1_234_567, 14_000_000, 17_283_938),
        line(
            Meter::MemoryByteMs,
            (256 << 20) * 2_000,
            4_500_000,
            2_250_000,
        ),
    ];
    let settled = Settled {
        hold: Arc::new(hold),
        posted: Quantities {
            executions: 1,
            cpu_us: 1_234_567,
            memory_byte_ms: (256 << 20) * 2_000,
            ..Quantities::default()
        },
        funded: Vec::new(),
        overrun: Quantities::default(),
        charge: Charge {
            currency: "USD".to_owned(),
            total: Money(19_733_938),
            lines,
        },
        outcome: String::new(),
        estimated: false,
    };
    Entry {
        seq,
        at: opened_at + 2_000_000,
        body: Body::Settled(settled),
    }
}

fn written(format: Format, entries: &[Entry]) -> String {
    String::from_utf8(bytes(format, entries)).unwrap()
}

/// What is of one project: months are not rounded.
fn of_a_project() -> ChargeQuery {
    ChargeQuery {
        only: Only {
            project: Some("web_1".to_owned()),
            ..Only::default()
        },
        ..ChargeQuery::default()
    }
}

fn begun(format: Format, query: &ChargeQuery) -> Export {
    let issuer = Issuer {
        provider: "Op".to_owned(),
        region: "local".to_owned(),
    };
    Export::new(format, issuer, query).unwrap()
}

fn ended(mut export: Export, entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    export.head(&mut out);
    export.entries(entries, &mut out).unwrap();
    let through = entries.last().map_or(0, |entry| entry.seq);
    export.end(through, &mut out).unwrap();
    out
}

pub(super) fn bytes(format: Format, entries: &[Entry]) -> Vec<u8> {
    ended(begun(format, &of_a_project()), entries)
}

#[test]
fn csv_and_jsonl_have_a_row_for_each_line() {
    let execution = "exe_02020202020202020202020202020202";
    let csv = written(Format::Csv, &[entry(7, AT)]);
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(
        lines[2],
        format!(
            "7,usage,2026-11-30T23:59:59.500000Z,2026-12-01T00:00:01.500000Z,{execution},acme,web_1,,jti,\
             python@sha256:ab,\"{{\"\"cost_center\"\":\"\"=4,\\\"\"2\"\"}}\",cpu_us,0,1234567,us,\
             1000000,0.000014,0.000017283938,USD,,,"
        )
    );
    let jsonl = written(Format::Jsonl, &[entry(7, AT)]);
    assert_eq!(
        jsonl.lines().next_back().unwrap(),
        format!(
            "{{\"entry\":7,\"kind\":\"usage\",\"time\":\"2026-11-30T23:59:59.500000Z\",\
             \"recorded_at\":\"2026-12-01T00:00:01.500000Z\",\"execution\":\"{execution}\",\
             \"tenant\":\"acme\",\"project\":\"web_1\",\"function\":null,\"key\":\"jti\",\
             \"image\":\"python@sha256:ab\",\"tags\":{{\"cost_center\":\"=4,\\\"2\"}},\
             \"meter\":\"memory_byte_ms\",\"tier\":0,\"quantity\":\"536870912000\",\"unit\":\"byte_ms\",\
             \"unit_size\":\"1073741824000\",\"rate\":\"0.0000045\",\
             \"amount\":\"0.000002250000\",\"currency\":\"USD\",\"reverses\":null,\
             \"description\":null,\"grant\":null}}"
        )
    );
}

#[test]
fn focus_adds_up_what_is_alike_in_an_hour() {
    let text = written(
        Format::Focus,
        &[entry(7, AT), entry(8, AT + 1), entry(9, AT + 500_000)],
    );
    let lines: Vec<&str> = text.lines().collect();
    // Two hours, three prices each.
    assert_eq!(lines.len(), 7);
    assert_eq!(
        lines[2],
        "tenant/acme,acme,Tenant,project/acme/web_1,web_1,Project,USD,2026-11-01T00:00:00Z,\
         2026-12-01T00:00:00Z,Usage,,CPU Time of image python,Usage-Based,2026-11-30T23:00:00Z,\
         2026-12-01T00:00:00Z,0.000034567876,0.000034567876,0.000034567876,0.000034567876,0.000014,\
         0.000014,USD,0.000014,0.000014,0.000034567876,Standard,2.469134,Seconds,2.469134,Seconds,\
         acme/2026-11,Op,Op,Op,Compute,Serverless Compute,Sandbox Executions,cpu_us,rate/3/cpu_us/0,\
         CPU Time,\"{\"\"x_RateCardEntry\"\":3}\",image/python@sha256:ab,python,Image,local,local,\
         \"{\"\"cost_center\"\":\"\"=4,\\\"\"2\"\"}\",,7,8,9"
    );
    assert!(lines[4].contains(",2026-12-01T00:00:00Z,2027-01-01T00:00:00Z,Usage,,Executions of"));
    assert!(lines[4].contains(",acme/2026-12,") && lines[4].ends_with(",9,9,9"));
}

#[test]
fn books_balance_each_day() {
    let entries = [entry(7, AT), entry(8, AT + 1), entry(9, AT + 500_000)];
    let beancount = written(Format::Beancount, &entries);
    assert!(beancount.ends_with(
        "\n2026-12-01 * \"acme\" \"web_1: 1 run\"\n  entry_first: 9\n  entry_last: 9\n  \
         through: 9\n  Assets:Receivable:T-acme:P-web-5F1  0.000019733938 USD\n  \
         Income:Usage:Executions  -0.000000200000 USD\n  Income:Usage:Cpu  -0.000017283938 USD\n  \
         Income:Usage:Memory  -0.000002250000 USD\n"
    ));
    let hledger = written(Format::Hledger, &entries);
    assert!(hledger.contains(
        "\n2026-11-30 * acme | web_1: 2 runs  ; entry_first:7, entry_last:8, through:9\n  \
         Assets:Receivable:T-acme:P-web-5F1  0.000039467876 USD\n"
    ));
}

/// Half a dollar back, or the run of entry 7, whose month was closed already.
pub(super) fn adjustment(seq: u64, reversal: bool) -> Entry {
    let party = |name: &str| Party {
        key: name.to_owned(),
        subject: name.to_owned(),
    };
    let Body::Settled(settled) = entry(7, AT).body else {
        unreachable!()
    };
    let (amount, what) = if reversal {
        let amount = Money(-settled.charge.total.0);
        let settled = Box::new(settled);
        (amount, Adjustment::Reversal { entry: 7, settled })
    } else {
        let description = "=goodwill; \"a|b\"".to_owned();
        (Money(-500_000_000_000), Adjustment::Line { description })
    };
    Entry {
        seq,
        at: AT + 3_600_000_000,
        body: Body::Adjusted(Adjusted {
            proposal: 1,
            author: party("ann"),
            approver: party("bob"),
            reason: "our fault".to_owned(),
            tenant: "acme".to_owned(),
            currency: "USD".to_owned(),
            amount,
            what,
            funded: Vec::new(),
            refunded: Money::ZERO,
            corrects: reversal.then(|| Period::parse("2026-11").unwrap()),
        }),
    }
}

#[test]
fn adjustments_are_rows_of_their_own_in_their_own_instant() {
    let entries = [entry(7, AT), adjustment(8, true), adjustment(9, false)];
    let csv = written(Format::Csv, &entries);
    let rows: Vec<&str> = csv.lines().rev().take(2).collect();
    assert_eq!(
        rows[0],
        "9,adjustment,2026-12-01T00:59:59.500000Z,2026-12-01T00:59:59.500000Z,,acme,,,,,{},,,,,,,\
         -0.500000000000,USD,,\"'=goodwill; \"\"a|b\"\"\","
    );
    assert!(rows[1].starts_with("8,correction,2026-12-01T00:59:59.500000Z,"));
    assert!(rows[1].ends_with(",,,,,,,-0.000019733938,USD,7,our fault,"));
    assert!(rows[1].contains(",exe_02020202020202020202020202020202,acme,web_1,,jti,python@"));
    let focus = written(Format::Focus, &entries);
    let rows: Vec<&str> = focus.lines().collect();
    // What came before is written before, whatever it would have been added up with.
    assert_eq!(rows.len(), 6);
    for (row, part) in [
        (
            4,
            "tenant/acme,acme,Tenant,project/acme/web_1,web_1,Project,",
        ),
        (
            4,
            ",2026-12-01T00:00:00Z,2027-01-01T00:00:00Z,Adjustment,Correction,our fault,One-Time,",
        ),
        (
            4,
            ",-0.000019733938,-0.000019733938,-0.000019733938,-0.000019733938,,,USD,,,-0.0000197",
        ),
        (5, "tenant/acme,acme,Tenant,,,,USD,"),
        (5, ",Adjustment,,\"'=goodwill; \"\"a|b\"\"\",One-Time,"),
        (
            5,
            ",acme/2026-12,Op,Op,Op,Compute,Serverless Compute,Sandbox Executions,,,,,,,,local,",
        ),
    ] {
        assert!(rows[row].contains(part), "{part} in {}", rows[row]);
    }
    let books = written(Format::Beancount, &entries);
    assert!(books.ends_with(
        "\n2026-12-01 * \"acme\" \"correction: our fault\"\n  entry_first: 8\n  entry_last: 8\n  \
         through: 8\n  Assets:Receivable:T-acme:P-web-5F1  -0.000019733938 USD\n  \
         Income:Adjustments  0.000019733938 USD\n\n2026-12-01 * \"acme\" \"adjustment: \
         =goodwill; \\\"a|b\\\"\"\n  entry_first: 9\n  entry_last: 9\n  through: 9\n  \
         Assets:Receivable:T-acme  -0.500000000000 USD\n  Income:Adjustments  \
         0.500000000000 USD\n"
    ));
    let hledger = written(Format::Hledger, &entries);
    assert!(
        hledger.contains("2026-12-01 * acme | adjustment: =goodwill? \"a?b\"  ; entry_first:9")
    );
}

#[test]
fn what_is_held_is_bounded_and_nothing_is_lost() {
    // Each run in an hour of its own: three sums each.
    let hour = |n: u64| AT + i64::try_from(n).unwrap() * 3_600_000_000;
    let entries: Vec<Entry> = (1..=1_500).map(|n| entry(n, hour(n))).collect();
    let text = written(Format::Focus, &entries);
    let rows: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(rows.len(), 4_500);
    let through = |row: &&str| row.rsplit(',').next().map(str::to_owned);
    let mut written: Vec<String> = rows.iter().filter_map(through).collect();
    written.dedup();
    assert_eq!(written, ["683", "1366", "1500"]);
}

#[test]
fn decimals_are_exact() {
    for (number, unit, places, text) in [
        (0, 1, 0, "0.0"),
        (20, 1, 0, "20.0"),
        (1_234_567, 1_000_000, 0, "1.234567"),
        (1, 1 << 30, 0, "0.000000000931322574615478515625"),
        (14_000_000, 1, 12, "0.000014"),
        (12_500_000_000_000, 1, 12, "12.5"),
        (1_234_567 * 14_000_000, 1_000_000, 12, "0.000017283938"),
        (
            1,
            (1 << 30) * 1_000,
            12,
            "0.000000000000000000000000931322574615478515625",
        ),
    ] {
        assert_eq!(exact(number, unit, places), text);
    }
}

/// A run of two packages of CPU, and of memory that is free at first and rounded up then.
fn mixed() -> Entry {
    let mut one = entry(7, AT);
    let Body::Settled(settled) = &mut one.body else {
        unreachable!()
    };
    let memory = |tier, quantity, rate, amount| ChargeLine {
        tier,
        ..line(Meter::MemoryByteMs, quantity, rate, amount)
    };
    let whole = (256 << 20) * 2_000;
    settled.charge.lines = vec![
        ChargeLine {
            unit_size: 1,
            ..line(Meter::CpuUs, 2, 5_000_000, 10_000_000)
        },
        memory(0, whole / 2, 0, 0),
        memory(1, whole, 4_500_000, -1),
    ];
    one
}

/// Its rows, by a card that sells CPU by the package.
fn rows_of_mixed(format: Format) -> Vec<String> {
    let (size, amount) = (1_000_000, Money(5_000_000));
    let card = RateCard {
        id: "packs".to_owned(),
        currency: "USD".to_owned(),
        effective_from: 0,
        prices: vec![Price::plain(Meter::CpuUs, Model::Package { size, amount })],
    };
    let mut export = begun(format, &of_a_project());
    export.card(3, &card);
    let mut out = Vec::new();
    export.entries([&mixed()], &mut out).unwrap();
    export.end(7, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn tiers_and_packages_are_rows_of_their_own_and_use_is_counted_once() {
    let focus = rows_of_mixed(Format::Focus);
    for (row, part) in [
        (0, ",Standard,2.0,Packages,1.234567,Seconds,"),
        (0, ",0.00001,0.00001,0.000005,0.000005,USD,"),
        (1, ",Standard,0.25,GiB-Seconds,0.25,GiB-Seconds,"),
        (2, ",Standard,0.5,GiB-Seconds,0.25,GiB-Seconds,"),
        (2, ",-0.000000000001,-0.000000000001,0.00000225,"),
        (2, ",rate/3/memory_byte_ms/1,"),
    ] {
        assert!(focus[row].contains(part), "{part} in {}", focus[row]);
    }
    let csv = rows_of_mixed(Format::Csv);
    for (row, part) in [
        (0, ",cpu_us,0,2,package,1,0.000005,0.000010000000,USD,,"),
        (
            2,
            ",1,536870912000,byte_ms,1073741824000,0.0000045,-0.000000000001,USD,,",
        ),
    ] {
        assert!(csv[row].contains(part), "{part} in {}", csv[row]);
    }
}

#[test]
fn credit_and_the_rounding_of_a_month_are_rows_of_their_own() {
    let mut entries = [entry(7, AT), adjustment(9, true), adjustment(10, false)];
    let paid = |amount| Funding {
        grant: 2,
        amount: Money(amount),
    };
    if let Body::Settled(settled) = &mut entries[0].body {
        settled.funded = vec![paid(9_733_938)];
    }
    if let Body::Adjusted(adjusted) = &mut entries[1].body {
        adjusted.refunded = Money(9_733_938);
    }
    let all = |format| {
        let mut export = begun(format, &ChargeQuery::default());
        // November was closed by entry 8, December is open.
        export.closed(8, AT + 1_000_000, Period::parse("2026-11").unwrap());
        String::from_utf8(ended(export, &entries)).unwrap()
    };
    let csv = all(Format::Csv);
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!(rows.len(), 10);
    for (row, part) in [
        (4, "7,credit,2026-11-30T23:59:59.500000Z,"),
        (4, ",,,,,,,-0.000009733938,USD,,,2"),
        (
            5,
            "8,rounding,2026-11-30T23:59:59.999999Z,2026-12-01T00:00:00.500000Z,,acme,,,,,{},",
        ),
        (
            5,
            ",-0.000010000000,USD,,rounding of 2026-11 to whole minor units,",
        ),
        (6, "9,correction,"),
        (7, "9,refund,"),
        (7, ",0.000009733938,USD,7,,9"),
        (9, ",rounding,2026-12-31T23:59:59.999999Z,,,acme,,,,,{},"),
        (
            9,
            ",0.000010000000,USD,,\"rounding of 2026-12, which is open, as it now stands\",",
        ),
    ] {
        assert!(rows[row].contains(part), "{part} in {}", rows[row]);
    }
    let focus = all(Format::Focus);
    let rows: Vec<&str> = focus.lines().collect();
    for (row, part) in [
        (
            4,
            ",Credit,,Credit of grant 2,One-Time,2026-11-30T23:00:00Z,",
        ),
        (4, ",-0.000009733938,-0.000009733938,"),
        (5, ",Adjustment,,rounding of 2026-11 to whole minor units,"),
        (5, ",acme/2026-11,Op,"),
        (7, ",Credit,Correction,Credit given back as grant 9,"),
        (9, ",acme/2026-12,Op,"),
    ] {
        assert!(rows[row].contains(part), "{part} in {}", rows[row]);
    }
    assert!(rows[5].ends_with(",8,8,8") && rows[9].ends_with(",,,10"));
    let books = all(Format::Beancount);
    for part in [
        "  Assets:Receivable:T-acme:P-web-5F1  0.000010000000 USD\n  \
         Liabilities:Credit:T-acme:G-2  0.000009733938 USD\n",
        "2026-11-30 * \"acme\" \"rounding of 2026-11 to whole minor units\"\n  entry_first: 8\n",
        "  Assets:Receivable:T-acme  -0.000010000000 USD\n  Income:Rounding  0.000010000000 USD\n",
        "  Assets:Receivable:T-acme:P-web-5F1  -0.000010000000 USD\n  \
         Liabilities:Credit:T-acme:G-9  -0.000009733938 USD\n  \
         Income:Adjustments  0.000019733938 USD\n",
    ] {
        assert!(books.contains(part), "{part} in {books}");
    }
}

/// What the first three lines of a run cost on the list, of a tenant with a card of its own.
fn on_the_list(list: Vec<Price>, currency: &str) -> Vec<(String, String)> {
    let card = |id: &str, prices, currency: &str| RateCard {
        id: id.to_owned(),
        currency: currency.to_owned(),
        effective_from: 0,
        prices,
    };
    let rate = |meter, amount| {
        let amount = Money(amount);
        Price::plain(meter, Model::Unit { amount })
    };
    let own = vec![
        rate(Meter::Executions, 200_000),
        rate(Meter::CpuUs, 14_000_000),
        rate(Meter::MemoryByteMs, 4_500_000),
    ];
    let mut export = begun(Format::Focus, &of_a_project());
    export.card(1, &card("list", list, currency));
    export.card(3, &card("deal", own, "USD"));
    // It is on the list only after this run has been settled.
    export.card(8, &card("list", vec![rate(Meter::CpuUs, 99)], currency));
    let text = String::from_utf8(ended(export, &[entry(7, AT)])).unwrap();
    let place = |name: &str| focus::COLUMNS.iter().position(|(known, _)| *known == name);
    let rows = text.lines().skip(1).map(|row| {
        let cells: Vec<&str> = row.split(',').collect();
        let cell = |name: &str| cells[place(name).unwrap()].to_owned();
        let (contracted, billed) = (cell("ContractedCost"), cell("BilledCost"));
        assert_eq!(contracted, billed.trim_end_matches('0'), "{row}");
        (cell("ListUnitPrice"), cell("ListCost"))
    });
    rows.collect()
}

#[test]
fn list_prices_are_the_operators_where_a_tenant_has_its_own() {
    let unit = |meter, amount| {
        let amount = Money(amount);
        Price::plain(meter, Model::Unit { amount })
    };
    let pair = |price: &str, cost: &str| (price.to_owned(), cost.to_owned());
    let own = [
        pair("0.0000002", "0.0000002"),
        pair("0.000014", "0.000017283938"),
        pair("0.0000045", "0.00000225"),
    ];
    let mut free = unit(Meter::MemoryByteMs, 9_000_000);
    free.allowance.included = 1;
    let list = vec![
        unit(Meter::Executions, 400_000),
        unit(Meter::CpuUs, 28_000_000),
        free,
    ];
    // An allowance of the list is of the month as a whole: no single price.
    let found = on_the_list(list.clone(), "USD");
    let expected = [
        pair("0.0000004", "0.0000004"),
        pair("0.000028", "0.000034567876"),
        own[2].clone(),
    ];
    assert_eq!(found, expected);
    assert_eq!(on_the_list(list, "EUR"), own);
    assert_eq!(on_the_list(Vec::new(), "USD"), own);
}
