//! The table: a row for each method.

use super::line::{Line, Verdict};

/// Methods that no line is about, and lines that are about none.
pub fn problems(methods: &[&str], lines: &[Line]) -> Vec<String> {
    let untested = methods
        .iter()
        .filter(|method| of(method, lines).all(|line| line.verdict == Verdict::NotExercised))
        .map(|method| format!("{method}: no test has a `COMPAT:` line about it"));
    let unknown = lines.iter().flat_map(|line| {
        let unknown = line.methods.iter().filter(|method| !methods.contains(&method.as_str()));
        unknown.map(|method| format!("{}: {}: there is no method `{method}`", line.file.display(), line.test))
    });
    untested.chain(unknown).collect()
}

/// The rows, in the order of the methods.
pub fn render(methods: &[&str], lines: &[Line]) -> String {
    let mut table =
        "| RPC | against upstream | what differs | the same | tests |\n|---|---|---|---|---|\n".to_owned();
    for method in methods {
        let lines: Vec<&Line> = of(method, lines).collect();
        let texts = |verdicts: &[Verdict]| {
            let lines = lines.iter().filter(|line| verdicts.contains(&line.verdict) && !line.text.is_empty());
            unique(lines.map(|line| match line.verdict {
                Verdict::NotExercised => format!("not exercised: {}", line.text),
                _ => line.text.clone(),
            }))
        };
        let mut verdicts: Vec<Verdict> = lines.iter().map(|line| line.verdict).collect();
        verdicts.sort_unstable();
        verdicts.retain(|verdict| matches!(verdict, Verdict::Stricter | Verdict::Better));
        verdicts.dedup();
        let verdict = match verdicts.as_slice() {
            [] => Verdict::Same.word().to_owned(),
            some => some.iter().map(|verdict| verdict.word()).collect::<Vec<_>>().join(", "),
        };
        let differs = texts(&[Verdict::Stricter, Verdict::Better, Verdict::NotExercised]).join("; ");
        let same = texts(&[Verdict::Same]).join("; ");
        let tests = unique(lines.iter().map(|line| format!("`{}`", line.test))).join(", ");
        table.push_str(&format!("| {method} | {verdict} | {differs} | {same} | {tests} |\n"));
    }
    table
}

fn of<'a>(method: &str, lines: &'a [Line]) -> impl Iterator<Item = &'a Line> {
    lines.iter().filter(move |line| line.methods.iter().any(|one| one == method))
}

/// Each once, in the order in which they come.
fn unique(texts: impl Iterator<Item = String>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for text in texts {
        if !found.contains(&text) {
            found.push(text);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(methods: &[&str], verdict: Verdict, text: &str, test: &str) -> Line {
        let methods = methods.iter().map(|method| (*method).to_owned()).collect();
        Line { methods, verdict, text: text.to_owned(), test: test.to_owned(), file: "a.rs".into() }
    }

    #[test]
    fn a_row_has_what_all_lines_say() {
        let lines = [
            line(&["A", "B"], Verdict::Same, "", "t1"),
            line(&["A"], Verdict::Better, "more", "t2"),
            line(&["A"], Verdict::Stricter, "less", "t2"),
            line(&["A"], Verdict::Stricter, "less", "t3"),
            line(&["B"], Verdict::Same, "codes", "t2"),
            line(&["B"], Verdict::NotExercised, "no kernel", "t2"),
        ];
        let table = render(&["A", "B"], &lines);
        let rows: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| A | stricter, better | more; less |  | `t1`, `t2`, `t3` |",
                "| B | same | not exercised: no kernel | codes | `t1`, `t2` |",
            ]
        );
        assert!(problems(&["A", "B"], &lines).is_empty());
    }

    #[test]
    fn methods_without_a_test_and_lines_without_a_method_are_told() {
        let lines =
            [line(&["A", "X"], Verdict::Same, "", "t1"), line(&["B"], Verdict::NotExercised, "why", "t1")];
        let problems = problems(&["A", "B"], &lines);
        assert_eq!(
            problems,
            ["B: no test has a `COMPAT:` line about it", "a.rs: t1: there is no method `X`"]
        );
    }
}
