use super::{Blanked, blank};
use crate::limits::Limits;
use crate::policy::parsed;

fn blanked(text: &str) -> Result<String, u32> {
    let text = format!("package agent_policy\n{text}");
    let mut engine = parsed(&text, &Limits::default()).unwrap();
    let module = engine.get_modules().first().unwrap().clone();
    match blank(&text, &module) {
        Blanked::Text { text: blanked, .. } => {
            assert_eq!(text.lines().count(), blanked.lines().count());
            for (before, after) in text.lines().zip(blanked.lines()) {
                assert_eq!(before.chars().count(), after.chars().count());
            }
            Ok(blanked.strip_prefix("package agent_policy\n").unwrap().to_owned())
        }
        Blanked::Kept { line } => Err(line - 1),
    }
}

#[test]
fn a_print_goes_and_everything_else_keeps_its_place() {
    assert_eq!(
        blanked("a if {\n    print(\"x\", input.b)\n    input.c == 1\n}").unwrap(),
        "a if {\n                       \n    input.c == 1\n}"
    );
    assert_eq!(blanked("a if { print(\"é\") }").unwrap(), "a if { true       }");
    assert_eq!(blanked("a if print(1)").unwrap(), "a if true    ");
    assert_eq!(blanked("a if { print(1); input.b }").unwrap(), "a if { true    ; input.b }");
    assert_eq!(blanked("a if { input.b; print(1) }").unwrap(), "a if { input.b; true     }");
    assert_eq!(
        blanked("a if {\n    every x in input.l {\n        print(x)\n        x == 1\n    }\n}").unwrap(),
        "a if {\n    every x in input.l {\n                \n        x == 1\n    }\n}"
    );
    assert_eq!(
        blanked("a := [x | some x in input.l; print(x, \"; }\")]").unwrap(),
        "a := [x | some x in input.l; true           ]"
    );
    assert_eq!(
        blanked("f(x) := y if {\n\tprint(x,\n\t\tinput[x])\n\ty := x\n}").unwrap(),
        "f(x) := y if {\n\t        \n\t\t         \n\ty := x\n}"
    );
    assert_eq!(
        blanked("a if {\n    # print(1)\n    input.b == \"print(1)\"\n}").unwrap(),
        "a if {\n    # print(1)\n    input.b == \"print(1)\"\n}"
    );
}

#[test]
fn what_would_read_differently_without_the_print_becomes_true() {
    // Without its first statement this body could be read as a set.
    let text = blanked("a if {\n    print(1)\n    {1} | {2}\n}");
    assert!(text.is_err() || text.unwrap().contains("true"), "the tree is compared");
}

#[test]
fn evil_operator_print_that_decides() {
    for text in [
        "a if { x := print(1); x == true }",
        "a if { not print(1) }",
        "a if { print(1) == true }",
        "a if { print(input.l[_]) }",
        "a if { some i; print(input.l[i]) }",
        "a if { print(input.n + 1) }",
        "a if { print(f(1)) }\nf(x) := 1",
        "a if { print(b) }\nb := 1 if input.c\nb := 2 if input.d",
        "a if { print(data.agent_policy.b) }\nb if input.c",
        "a if { print([x | some x in input.l]) }",
        "a if { print(1) with input as {} }",
        "a if { print(1) }\nprint(x) := false",
        "a if { print := 1; print == 1 }",
        "a if { input.b } else := print(2)",
        "import data.x.print\na if { print(1) }",
        "a if { count(1) == 1; print(count(2)) }\ncount(x) := 1",
        "a if { every print in input.l { print == 1 } }",
    ] {
        assert!(blanked(text).is_err(), "{text}");
    }
}

#[test]
fn prints_of_harmless_things_go() {
    for text in [
        "a if { x := input.l; print(x, x[0], x.y[\"z\"], c, c.d, [x, 1], count(x)) }\nc := {\"d\": [1]}",
        "f(x, [y, z]) if { print(x, y, z[x]) }",
        "a if { n := count(input.l); print(input.l[n - 1], lower(\"A\")) }",
        "a if { some k, v in input.l; print(k, v, input.o[k]) }",
    ] {
        let text = blanked(text).unwrap();
        assert!(!text.contains("print"), "{text}");
    }
}
