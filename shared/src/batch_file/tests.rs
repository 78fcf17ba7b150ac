use proptest::prelude::*;

use super::*;

/// The lines of a file that is pushed at once.
fn lines(format: Format, file: &[u8]) -> Vec<Line> {
    let mut reader = Reader::new(format);
    reader.push(file);
    reader.finish();
    std::iter::from_fn(|| reader.next_line()).collect()
}

/// The numbers of the lines, and their jobs or the first fault.
fn jobs(format: Format, file: &str) -> Vec<(u64, Result<Value, LineFault>)> {
    let lines = lines(format, file.as_bytes()).into_iter();
    lines.map(|line| (line.number, line.job.map_err(|mut faults| faults.remove(0)))).collect()
}

#[test]
fn every_format_numbers_its_lines() {
    let (one, two) = (json!({ "prompt": "One, two" }), json!({ "prompt": "Three", "seed": 7 }));
    let csv = "seed,prompt,\n,\"One, two\",\n\n,,\n7,Three,\n";
    let ndjson = "{\"prompt\":\"One, two\"}\n \n{\"prompt\":\"Three\",\"seed\":7}\n";
    for end in ["\n", "\r\n", "\r"] {
        for (format, file, numbers) in [(Format::Csv, csv, [2, 5]), (Format::Ndjson, ndjson, [1, 3])] {
            let expected = [(numbers[0], Ok(one.clone())), (numbers[1], Ok(two.clone()))];
            assert_eq!(jobs(format, &file.replace('\n', end)), expected, "{end:?}");
            let mark_and_no_end = format!("\u{feff}{}", file.trim_end().replace('\n', end));
            assert_eq!(jobs(format, &mark_and_no_end), expected, "{end:?}");
        }
        let text = "One\n\n\u{a0}\n Two \n".replace('\n', end);
        assert_eq!(
            jobs(Format::Text, &text),
            [(1, Ok(json!({ "prompt": "One" }))), (4, Ok(json!({ "prompt": "Two" })))]
        );
    }
}

/// The faults of the first line of a file that gives up at it.
fn unreadable(format: Format, file: &[u8]) -> Vec<LineFault> {
    let mut reader = Reader::new(format);
    reader.push(file);
    reader.finish();
    let line = reader.next_line().expect("a line with a fault");
    assert!(reader.is_unreadable() && reader.next_line().is_none(), "nothing follows");
    assert_eq!(reader.position(), Position::default(), "reading it again says the same");
    line.job.expect_err("a fault")
}

#[test]
fn columns_are_the_fields_of_a_job_in_either_case() {
    let job =
        json!({ "prompt": "x", "poster": { "title": "T", "tagline": "t" }, "metadata": { "Aa": "b", "c.d": "e" } });
    for header in
        ["Prompt,TITLE,tagline,Metadata.Aa,METADATA.c.d", "prompt,poster.title,Poster.Tagline,metadata.Aa,metadata.c.d"]
    {
        assert_eq!(jobs(Format::Csv, &format!("{header}\nx,T,t,b,e\n")), [(2, Ok(job.clone()))]);
    }
    let every = "prompt,negative_prompt,aspect_ratio,seed,output_format,model,custom_id,poster.title,poster.tagline,\
                 poster.style,poster.placement,metadata.x\n\
                 A heist,fog,1:1,7,png,stability.sd3-5-large-v1:0,42,Heist,Now,noir,top,y\n";
    let line = lines(Format::Csv, every.as_bytes()).remove(0);
    let entry = line.order(&Map::new(), Model::Core).expect("a good job");
    assert_eq!(entry.custom_id.map(String::from).as_deref(), Some("42"), "a custom id is text");
    assert_eq!(entry.order.seed.map(crate::order::Seed::get), Some(7));
    assert_eq!(
        lines(Format::Csv, b"prompt,seed,custom_id,poster.style,poster.title\nx, ,,,\"\"\n").remove(0).job,
        Ok(json!({ "prompt": "x" }))
    );
}

#[test]
fn titles_may_stand_beside_the_prompt() {
    let job = json!({ "prompt": "x", "poster": { "title": "T", "tagline": "t" } });
    for line in
        [r#"{"prompt":"x","title":"T","poster":{"tagline":"t"}}"#, r#"{"prompt":"x","poster.title":"T","tagline":"t"}"#]
    {
        assert_eq!(jobs(Format::Ndjson, line), [(1, Ok(job.clone()))]);
    }
    for (line, rule) in [
        (r#"{"prompt":"x","title":"a","poster.title":"b"}"#, "has both title and poster.title"),
        (r#"{"prompt":"x","title":"a","poster":7}"#, "has title, but poster is not an object"),
    ] {
        assert_eq!(jobs(Format::Ndjson, line), [(1, Err(LineFault::of_line(1, rule)))]);
    }
}

#[test]
fn a_bad_header_is_a_fault_of_its_line_and_of_no_other() {
    for (header, pointer, rule) in [
        ("prompt,sede", "/sede", "is not a field"),
        ("prompt,poster.titel", "/poster/titel", "is not a field"),
        ("prompt,prompt.x", "", "must not name both the columns \"prompt\" and \"prompt.x\""),
        ("metadata,prompt,metadata.x", "", "must not name both"),
        ("prompt,metadata.", "/metadata", "keys of 1 to 64"),
        ("prompt,PROMPT", "", "must name the column \"prompt\" once"),
        ("prompt,title,poster.title", "", "must name the column \"poster.title\" once"),
        ("text,seed", "", "one of them prompt"),
        ("A heist on the moon, at night", "", "one of them prompt"),
        ("prompt;seed", "", "separated by semicolons"),
        ("Seed\t\"Prompt\"", "", "separated by tabs"),
        ("{\"prompt\":\"x\"}", "", "looks like JSON"),
        (&format!("prompt{}", ",".repeat(100)), "", "at most 100 columns, but names 101"),
    ] {
        let found = unreadable(Format::Csv, format!("\n{header}\n{}x,y\n", "x,y,z\n".repeat(3)).as_bytes());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].line == 2 && found[0].pointer == pointer && found[0].detail.contains(rule),
            "{header}: {found:?}"
        );
    }
    let found = unreadable(Format::Csv, b"prompt,a,b\nx,y,z\n");
    assert_eq!(found.iter().map(|fault| &*fault.pointer).collect::<Vec<_>>(), ["/a", "/b"]);
    assert!(unreadable(Format::Csv, b"prompt,caf\xe9\n")[0].detail.contains("UTF-8"));
}

#[test]
fn rows_must_have_a_cell_for_each_column() {
    let found = jobs(Format::Csv, "prompt,seed,\nx\nx,1,\nx,1,,\nx,1,y\n");
    let numbers: Vec<_> =
        found.iter().map(|(line, job)| (*line, job.as_ref().err().map(|fault| &*fault.detail))).collect();
    assert_eq!(
        numbers,
        [
            (2, Some("must have 3 cells, one for each column, but has 1")),
            (3, None),
            (4, Some("must have 3 cells, one for each column, but has 4")),
            (5, Some("must have nothing in a column without a name")),
        ]
    );
}

#[test]
fn quoted_cells_may_have_line_ends_and_quotation_marks() {
    for end in ["\n", "\r\n", "\r"] {
        let csv = "prompt,seed\n\"One\n\n\"\"two\"\"\",1\nThe 12\" single,2\n\"x\",3\n".replace('\n', end);
        let found = jobs(Format::Csv, &csv);
        assert_eq!(found.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 5, 6], "{end:?}");
        let prompts: Vec<_> = found.iter().map(|(_, job)| job.as_ref().expect("a job")["prompt"].clone()).collect();
        assert_eq!(prompts, [format!("One{end}{end}\"two\""), "The 12\" single".to_owned(), "x".to_owned()]);
    }
}

#[test]
fn a_quotation_mark_that_is_never_closed_is_a_fault_of_its_line() {
    let mut reader = Reader::new(Format::Csv);
    reader.push(b"custom_id,prompt,seed\n1,x,1\n\"\n3\",\"A heist\n4,Moon\n5,A western,2\n");
    reader.finish();
    assert!(reader.next_line().is_some_and(|line| line.job.is_ok()));
    let line = reader.next_line().expect("a line");
    let fault = LineFault::of_line(4, "has a quotation mark that is never closed");
    assert_eq!((line.number, line.job), (3, Err(vec![fault])));
    assert!(reader.is_unreadable() && reader.next_line().is_none());
    let closed = jobs(Format::Csv, "prompt\n\"x\"");
    assert_eq!(closed, [(2, Ok(json!({ "prompt": "x" })))], "the file may end with the mark that closes");
}

#[test]
fn what_looks_like_another_format_is_a_fault_and_never_a_prompt() {
    for (format, line, rule) in [
        (Format::Text, "{\"prompt\":\"x\"}", "looks like JSON"),
        (Format::Text, "[{\"prompt\":\"x\"}]", "looks like JSON"),
        (Format::Text, "[", "looks like JSON"),
        (Format::Text, "prompt,seed", "looks like the header of a CSV file"),
        (Format::Text, "Prompt", "looks like the header of a CSV file"),
        (Format::Text, "id;\"Prompt\"", "looks like the header of a CSV file"),
        (Format::Ndjson, "[", "looks like a JSON array"),
        (Format::Ndjson, "[{\"prompt\":\"x\"},", "looks like a JSON array"),
        (Format::Ndjson, "{", "takes several lines"),
        (Format::Ndjson, "prompt,seed", "looks like the header of a CSV file"),
    ] {
        let found = unreadable(format, format!("\n{line}\nx\n").as_bytes());
        assert!(found[0].line == 2 && found[0].detail.contains(rule), "{line}: {found:?}");
    }
    for (format, line) in [(Format::Text, "{"), (Format::Ndjson, "[{"), (Format::Csv, "{")] {
        let found = unreadable(format, format!("{line}{}", "x".repeat(MAX_LINE_BYTES)).as_bytes());
        assert!(found[0].detail.contains("looks like"), "however long the line is: {found:?}");
    }
    for prompt in ["[Noir] A detective", "A prompt, and more", "prompts, many", "7"] {
        assert_eq!(jobs(Format::Text, prompt), [(1, Ok(json!({ "prompt": prompt })))]);
    }
    let second = jobs(Format::Ndjson, "{}\n[]\nprompt,seed\n7\n{\"a\":1,\"a\":2}\n{\"a\":1}}\n");
    let rules: Vec<_> =
        second.into_iter().map(|(_, job)| job.map_or_else(|fault| fault.detail, |job| job.to_string())).collect();
    assert_eq!(
        rules,
        [
            "{}",
            "must be an object, not an array",
            "is not JSON: expected value at column 1",
            "must be an object, not a number",
            "is not JSON: the key \"a\" is repeated at column 13",
            "is not JSON: trailing characters at column 8",
        ]
    );
}

#[test]
fn other_encodings_are_named() {
    let utf_16 = |text: &str, unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect::<Vec<_>>();
    for format in Format::ALL {
        for file in ["\u{feff}prompt\nx\n", "prompt\nx\n"] {
            for unit in [u16::to_le_bytes, u16::to_be_bytes] {
                let found = unreadable(*format, &utf_16(file, unit));
                assert!(found[0].line == 1 && found[0].detail.contains("UTF-16"), "{found:?}");
            }
        }
        // This is no other encoding, but a character that no prompt may have.
        for file in [&b"a\0b\n"[..], b"\0ab\n"] {
            let mut reader = Reader::new(*format);
            reader.push(file);
            reader.finish();
            let faults = reader.next_line().map(|line| line.order(&Map::new(), Model::Core));
            let faults = faults.expect("a line").expect_err("a fault");
            assert!(!faults[0].detail.contains("UTF-16"), "{faults:?}");
        }
        assert!(unreadable(*format, b"PK\x03\x04\x14\0")[0].detail.contains("workbook"));
        assert!(unreadable(*format, b"\x1f\x8b\x08\0")[0].detail.contains("gzip"));
    }
    for (format, file) in [
        (Format::Csv, &b"prompt,seed\nx,1\nCaf\xe9,2\n\xc3,\xa9\ny,3\n"[..]),
        (Format::Text, b"x\n\nCaf\xe9\n\xc3\ny\n"),
        (Format::Ndjson, b"{}\n\n{\"prompt\":\"Caf\xe9\"}\n{}\xc3\n{}\n"),
    ] {
        let faults: Vec<_> = lines(format, file).into_iter().filter_map(|line| line.job.err()).flatten().collect();
        assert_eq!(faults, [3, 4].map(|line| LineFault::of_line(line, NOT_UTF_8)), "{format}");
    }
}

#[test]
fn a_line_that_is_too_long_is_a_fault_and_the_next_is_read() {
    assert!(TOO_LONG.replace(',', "").contains(&MAX_LINE_BYTES.to_string()) && LONG_QUOTE.starts_with(TOO_LONG));
    let fault = |line| Err(LineFault::of_line(line, TOO_LONG));
    for end in ["\n", "\r\n", "\r"] {
        let long = |extra: usize, end: &str| format!("{}{end}", "x".repeat(MAX_LINE_BYTES + extra));
        for (format, head) in [(Format::Text, "First"), (Format::Csv, "prompt"), (Format::Ndjson, "{}")] {
            let file = format!("{head}{end}{}{}{end}{}", long(1, end), long(3 * MAX_LINE_BYTES, end), long(0, ""));
            let found = jobs(format, &file);
            let found = &found[found.len() - 3..];
            assert_eq!(found[..2], [(2, fault(2)), (3, fault(3))], "{format}");
            assert_eq!((found[2].0, found[2].1.is_ok()), (5, format != Format::Ndjson), "{format}: the longest");
        }
    }
    let quoted = |extra: usize| format!("prompt\nx\n\"{}\"\ny\n", "x\n".repeat(MAX_LINE_BYTES / 2 - 1 + extra));
    assert!(jobs(Format::Csv, &quoted(0)).iter().all(|(_, job)| job.is_ok()));
    let found = jobs(Format::Csv, &quoted(1)).remove(1);
    assert!(found.0 == 3 && found.1.is_err_and(|fault| fault.line == 3 && fault.detail == LONG_QUOTE));
}

#[test]
fn memory_is_bounded_by_a_line_and_a_piece() {
    const PIECE: usize = 64 * 1024;
    for (format, head) in
        [(Format::Text, "First\n"), (Format::Csv, "prompt\n"), (Format::Csv, "prompt\n\""), (Format::Ndjson, "{}\n")]
    {
        let mut reader = Reader::new(format);
        reader.push(head.as_bytes());
        for _ in 0..64 {
            while reader.next_line().is_some() {}
            reader.push(&[b'x'; PIECE]);
            assert!(reader.buffer.len() <= MAX_LINE_BYTES + 2 * PIECE, "{format}: {}", reader.buffer.len());
            assert!(reader.row.room() <= MAX_LINE_BYTES + 2 * PIECE);
        }
    }
}

#[test]
fn faults_name_the_field_and_the_line() {
    let file = "{\"prompt\":\"\",\"poster\":{\"title\":\"T\",\"stile\":1}}\n{\"prompt\":\"x\",\"custom_id\":7}\n{\"prompt\":\"x\"}\n";
    let defaults = json!({ "seed": 7 });
    let orders = lines(Format::Ndjson, file.as_bytes());
    let orders: Vec<_> =
        orders.into_iter().map(|line| line.order(defaults.as_object().expect("an object"), Model::Core)).collect();
    let place = |fault: &LineFault| (fault.line, fault.pointer.clone());
    let faults: Vec<_> = orders.iter().filter_map(|order| order.as_ref().err()).flatten().map(place).collect();
    let expected = [(1, "/prompt"), (1, "/poster/stile"), (2, "/custom_id")];
    assert_eq!(faults, expected.map(|(line, pointer)| (line, pointer.to_owned())));
    assert!(orders[2].as_ref().is_ok_and(|entry| entry.order.seed.is_some()));
    let fault = LineFault::of_line(3, "must be an object, not a number");
    let json = r#"{"line":3,"pointer":"","detail":"must be an object, not a number"}"#;
    assert_eq!(serde_json::to_string(&fault).expect("JSON"), json);
}

/// The lines of a file that is cut into pieces of these lengths, over and over. Each must also be what a reader finds that
/// begins at the position before it.
fn lines_in_pieces(format: Format, file: &[u8], lengths: &[usize]) -> Vec<Line> {
    let mut reader = Reader::new(format);
    let (mut rest, mut lengths) = (file, lengths.iter().cycle());
    let (mut lines, mut positions) = (Vec::new(), vec![reader.position()]);
    loop {
        while let Some(line) = reader.next_line() {
            let Position { offset, lines: passed, .. } = reader.position();
            assert_eq!(line.end, Place { offset, lines: passed });
            lines.push(line);
            positions.push(reader.position());
        }
        if rest.is_empty() && reader.finished {
            break;
        } else if rest.is_empty() {
            reader.finish();
        } else {
            let (piece, after) = rest.split_at(rest.len().min(*lengths.next().expect("a length")));
            reader.push(piece);
            rest = after;
        }
    }
    for (index, position) in positions.into_iter().enumerate().take(lines.len()) {
        let json = serde_json::to_vec(&position).expect("JSON");
        let mut reader = Reader::resume(format, serde_json::from_slice(&json).expect("a position"));
        reader.push(&file[usize::try_from(position.offset).expect("it fits")..]);
        reader.finish();
        let rest: Vec<_> = std::iter::from_fn(|| reader.next_line()).collect();
        assert_eq!(rest, lines[index..], "resumed at {position:?}");
    }
    lines
}

fn pieces() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1..20_usize, 1..8)
}

/// A file of these fragments.
fn file(fragments: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(fragments), 0..60).prop_map(|fragments| fragments.concat())
}

fn with_line_feeds(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

proptest! {
    #[test]
    fn any_bytes_are_read_alike_however_they_are_cut(
        format in prop::sample::select(Format::ALL),
        begin in prop::sample::select(&["", "\u{feff}", "prompt,seed\r\n", "{}\n", "\r\n\r"][..]),
        rest in prop::collection::vec(prop_oneof![3 => prop::sample::select(&b"\r\n,\"{}x"[..]), 1 => any::<u8>()], 0..80),
        pieces in pieces(),
    ) {
        let file = [begin.as_bytes(), &rest].concat();
        prop_assert_eq!(lines_in_pieces(format, &file, &pieces), lines(format, &file));
    }

    #[test]
    fn ndjson_is_read_as_serde_json_reads_it(
        file in file(&[
            "{\"prompt\":", "\"x\"", "{\"a\":[1,{}]", ",\"b\":null", ":", ",", "}", "}\n", "}\r\n", "\n", "\r", " ", "7", "\"é\\n\"",
        ]),
        pieces in pieces(),
    ) {
        let found = lines_in_pieces(Format::Ndjson, file.as_bytes(), &pieces);
        let expected: Vec<_> = (1..)
            .zip(with_line_feeds(&file).lines())
            .filter(|(_, line)| !line.trim().is_empty())
            .map(|(number, line)| (number, serde_json::from_str::<Map<String, Value>>(line).ok().map(Value::Object)))
            .collect();
        // What serde_json has no objection to.
        let is_stricter = |line: &Line| {
            line.job.as_ref().is_err_and(|faults| faults[0].detail.contains("several lines") || faults[0].detail.contains("is repeated"))
        };
        prop_assume!(!found.iter().any(is_stricter));
        let found: Vec<_> = found.into_iter().map(|line| (line.number, line.job.ok())).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn csv_is_read_as_the_csv_crate_reads_it(
        rows in file(&["x", "\u{feff}", "\"", "\"", ",", ",", "\"x\"", "\"\"", "é", " ", "\n", "\r\n", "\r", "x,7,y\n", "\"x\n\",7,\r\n"]),
        pieces in pieces(),
    ) {
        let file = format!("\r\nprompt,seed,metadata.x\r\n{rows}");
        let records = |file: &str| {
            let reader = ::csv::ReaderBuilder::new().flexible(true).from_reader(file.as_bytes());
            reader.into_records().map(|record| record.expect("a record")).collect::<Vec<_>>()
        };
        // If a quotation mark is open, another row becomes a part of the last.
        let is_open = records(&format!("{file}\nprobe")).last().expect("a row").get(0) != Some("probe");
        let mut expected = records(&file);
        let open = expected.pop_if(|_| is_open);
        expected.retain(|record| record.iter().any(|cell| !cell.trim_ascii().is_empty()));
        expected.extend(open);
        let mut expected: Vec<_> = expected
            .into_iter()
            .map(|record| {
                let before = usize::try_from(record.position().expect("a position").byte()).expect("it fits");
                let begin = file.len() - file[before..].trim_start_matches(['\r', '\n']).len();
                let number = 1 + with_line_feeds(&file[..begin]).matches('\n').count() as u64;
                let cells: Vec<_> = record.iter().map(|cell| Some(cell).filter(|cell| !cell.trim().is_empty())).collect();
                (number, <[_; 3]>::try_from(cells).ok().map(|cells| cells.map(|cell| cell.map(str::to_owned))))
            })
            .collect();
        if is_open {
            expected.last_mut().expect("the row with the mark").1 = None;
        }
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let found: Vec<_> = lines_in_pieces(Format::Csv, file.as_bytes(), &pieces)
            .into_iter()
            .map(|line| {
                let cells = ["/prompt", "/seed", "/metadata/x"];
                (line.number, line.job.ok().map(|job| cells.map(|cell| job.pointer(cell).map(text))))
            })
            .collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn text_is_read_as_the_standard_library_reads_it(file in file(&["x", " é", "\n", "\r\n", "\r", "\u{a0}"]), pieces in pieces()) {
        let found: Vec<_> = lines_in_pieces(Format::Text, file.as_bytes(), &pieces)
            .into_iter()
            .map(|line| (line.number, line.job.expect("a job")["prompt"].clone()))
            .collect();
        let text = with_line_feeds(&file);
        let prompts = (1..).zip(text.lines().map(str::trim)).filter(|(_, prompt)| !prompt.is_empty());
        let expected: Vec<_> = prompts.map(|(number, prompt)| (number, Value::from(prompt))).collect();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn long_lines_are_read_alike_however_they_are_cut() {
    let x = |length: usize| "x".repeat(length);
    for extra in [0, 1, 20_000] {
        let longest = x(MAX_LINE_BYTES + extra);
        let quoted = x(MAX_LINE_BYTES - 2 + extra);
        for (format, file) in [
            (Format::Text, format!("First\r\n{longest}\r\n{longest}\r{longest}")),
            (Format::Csv, format!("prompt\r\n{longest}\r\n\"{quoted}\"\r\ny\r\n")),
            (Format::Csv, format!("prompt,seed\r\n\"a\r\nb\",{}\r\ny,2\r\n", x(MAX_LINE_BYTES - 7 + extra))),
            (Format::Csv, format!("prompt\r\n\"{}", x(MAX_LINE_BYTES - 1 + extra))),
        ] {
            for pieces in [&[7919][..], &[MAX_LINE_BYTES, 1, 2]] {
                assert_eq!(lines_in_pieces(format, file.as_bytes(), pieces), lines(format, file.as_bytes()));
            }
        }
    }
}

#[test]
fn a_file_of_empty_lines_is_read_no_further_than_the_last_line_that_is_allowed() {
    let ends = "\n".repeat(MAX_LINES as usize);
    for format in Format::ALL {
        let head = if *format == Format::Csv { "prompt\n" } else { "" };
        let mut reader = Reader::new(*format);
        reader.push(head.as_bytes());
        reader.push(&ends.as_bytes()[head.lines().count()..]);
        assert_eq!(reader.next_line(), None, "{format}: this many are allowed");
        reader.push(b"\n");
        let line = reader.next_line().expect("one more is not");
        assert_eq!((line.number, line.job), (MAX_LINES + 1, Err(vec![LineFault::of_line(MAX_LINES + 1, TOO_MANY)])));
        assert!(reader.is_unreadable());
    }
    assert!(TOO_MANY.replace(',', "").contains(&MAX_LINES.to_string()));
}
