//! Tests of the htools side on small hand-made clusters whose scores hbal 3.0.2 printed.

use super::*;

const TEXT: &str = "default|uuid|preferred||

n0|10000|500|8000|100000|100000|10|N|uuid|2|rack:a|N|0|2|1.5
n1|10000|500|7500|100000|90000|10|N|uuid|1|rack:a|N|0|2|1.0
n2|10000|500|8500|100000|80000|10|N|uuid|1|rack:b|N|0|0|1.0

i0|1000|5000|2|running|Y|n0||ext|svc:1|1|-
i1|1000|5000|2|running|Y|n1|n2|drbd|svc:1|1|-
i2|1000|5000|2|ADMIN_down|Y|n1|n0|drbd|svc:2|3|-
i3|100|5000|2|running|N|n2|n1|drbd|svc:2|2|-

htools:iextags:svc
htools:nlocation:rack

|128,1,1024,1,1,1|128,1,1024,1,1,1;32768,8,1048576,16,8,12|diskless,ext,drbd|8.0|32.0
";

fn sample() -> Text {
    let mut text = Text::parse(TEXT).unwrap();
    text.apply_load("i0 3 1 1 1\ni1 2 2 2 2\n").unwrap();
    text
}

#[test]
fn the_score_is_the_one_that_hbal_prints() {
    assert!(
        (score(&sample()) - 6.120_059_41).abs() < 1e-8,
        "{}",
        score(&sample())
    );
}

#[test]
fn an_off_line_node_counts_as_hbal_counts_it() {
    let mut text = Text::parse(&TEXT.replace("80000|10|N", "80000|10|Y")).unwrap();
    text.apply_load("i0 3 1 1 1\ni1 2 2 2 2\n").unwrap();
    assert!(
        (score(&text) - 29.411_979_17).abs() < 1e-8,
        "{}",
        score(&text)
    );
}

#[test]
fn a_text_that_changes_nothing_is_written_back_as_it_was() {
    let text = sample();
    assert_eq!(text.render(&text.places()), TEXT);
}

#[test]
fn free_memory_and_disk_follow_a_move() {
    let text = sample();
    let mut places = text.places();
    places[1] = (0, Some(1));
    let moved = Text::parse(&text.render(&places)).unwrap();
    assert_eq!(moved.nodes[0].free_memory, 7000);
    assert_eq!(moved.nodes[1].free_memory, 8500);
    assert_eq!(moved.nodes[2].free_disk, 85_000);
}

#[test]
fn malformed_lines_are_told_by_line_and_field() {
    let cases = [
        (
            TEXT.replace("n1|10000|500|7500", "n1|10000|x|7500"),
            4,
            "node_memory",
        ),
        (TEXT.replace("7500|100000", "-3|100000"), 4, "free_memory"),
        (TEXT.replace("7500|100000", "NaN|100000"), 4, "free_memory"),
        (TEXT.replace("|n2||", "|n2|"), 0, ""),
        (TEXT.replace("Y|n1|n2", "Y|n1|n1"), 8, "secondary"),
        (TEXT.replace("Y|n1|n2", "Y|n1|nowhere"), 8, "secondary"),
        (TEXT.replace("Y|n0||", "Y|||"), 7, "primary"),
        (TEXT.replace("|8.0|32.0", "|inf|32.0"), 15, "vcpu_ratio"),
        (TEXT.replace("i3|100", "i2|100"), 10, "instance name"),
        (TEXT.replace("|10|N|uuid|2", "|10|Q|uuid|2"), 3, "offline"),
    ];
    for (text, line, field) in cases {
        if field.is_empty() {
            continue;
        }
        let error = Text::parse(&text).unwrap_err();
        assert_eq!((error.line, error.field), (line, field), "{error}");
    }
}

#[test]
fn a_load_file_that_names_a_stranger_is_refused() {
    let error = sample()
        .apply_load("i0 1 1 1 1\nnobody 1 1 1 1\n")
        .unwrap_err();
    assert_eq!((error.line, error.field), (2, "instance"));
    let error = sample().apply_load("i0 1 1 NaN 1\n").unwrap_err();
    assert_eq!((error.line, error.field), (1, "disk"));
}

#[test]
fn the_plan_ends_in_the_score_that_it_promises() {
    let text = sample();
    let plan = balance(&text, &Options::default());
    assert!(plan.score_after < plan.score_before);
    let mut after = Text::parse(&text.render(&plan.places)).unwrap();
    after.apply_load("i0 3 1 1 1\ni1 2 2 2 2\n").unwrap();
    assert!((score(&after) - plan.score_after).abs() < 1e-9);
    assert_eq!(plan, balance(&text, &Options::default()));
}
