//! Small policies out of choices: every construct that generated policies use, `print` wherever it may stand, in
//! combinations that nobody would write.

/// Where choices come from: a generator or a fuzzer.
pub trait Choices {
    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize;
}

/// Requests that such policies are asked about.
pub const INPUTS: &[&str] = &[
    r#"{"a": ["x", "y"], "o": {"x": 1, "y": ["x"]}, "s": "x", "n": 1, "z": null, "b": true}"#,
    r#"{"a": [], "o": {}, "s": "", "n": 0, "z": null, "b": false}"#,
    r#"{"a": [["x"], {"x": "y"}, 1], "o": {"x": {"x": "x"}, "y": "y"}, "s": "y", "n": 2, "z": ["x"], "b": null}"#,
    r#"{"a": null, "o": ["x"], "s": 1, "n": "x", "b": [1]}"#,
    r#"{"a": {"x": "x"}, "o": "x", "s": {"y": 2}, "n": null, "z": {"x": 1}, "b": 0}"#,
];

/// The requests that a policy may define.
pub const NAMES: [&str; 3] = ["ARequest", "BRequest", "CRequest"];

/// Writes one policy.
pub fn policy(choices: &mut dyn Choices) -> String {
    let mut writer = Writer { choices, text: String::new(), names: 0, prints: true };
    writer.module();
    writer.text
}

struct Writer<'a> {
    choices: &'a mut dyn Choices,
    text: String,
    names: usize,
    prints: bool,
}

/// Names that are bound where something is written.
type Bound = Vec<String>;

impl Writer<'_> {
    fn pick<'b>(&mut self, from: &[&'b str]) -> &'b str {
        from[self.choices.below(from.len())]
    }

    fn fresh(&mut self) -> String {
        self.names += 1;
        format!("v{}", self.names)
    }

    fn module(&mut self) {
        self.text.push_str("package agent_policy\n\nimport rego.v1\n\n");
        self.text.push_str("c0 := [\"x\", \"y\", {\"x\": \"y\"}]\nc1 := {\"x\": [\"x\"], \"y\": {\"y\": \"x\"}}\nc2 := 2\n\n");
        for name in NAMES {
            match self.choices.below(4) {
                0 => self.text.push_str(&format!("default {name} := false\n")),
                1 => self.text.push_str(&format!("default {name} := {{\"allowed\": false}}\n")),
                _ => {}
            }
            for _ in 0..=self.choices.below(2) {
                let value = match self.choices.below(5) {
                    0 => " := {\"allowed\": true, \"ops\": []}".to_owned(),
                    1 => " := {\"allowed\": true, \"found\": found}".to_owned(),
                    2 => " := true".to_owned(),
                    _ => String::new(),
                };
                self.text.push_str(&format!("{name}{value} if {{\n"));
                let mut bound = Bound::new();
                self.statements(&mut bound, 1, 0);
                if value.contains("found") {
                    let expression = self.expression(&bound, 1);
                    self.text.push_str(&format!("    found := {expression}\n"));
                }
                self.text.push_str("}\n\n");
            }
        }
        for function in 0..3 {
            self.function(function);
        }
    }

    fn function(&mut self, number: usize) {
        let valued = self.choices.below(2) == 0;
        for _ in 0..=self.choices.below(3) {
            let value = if valued { " := result" } else { "" };
            self.text.push_str(&format!("f{number}(p, q){value} if {{\n"));
            let mut bound = vec!["p".to_owned(), "q".to_owned()];
            // Functions call only those with larger numbers, so that none calls itself.
            self.statements(&mut bound, 1, number + 1);
            if valued {
                let expression = self.expression(&bound, 1);
                self.text.push_str(&format!("    result := {expression}\n"));
            }
            self.text.push('}');
            if self.choices.below(4) == 0 {
                let other = if valued { " := \"x\"" } else { "" };
                self.text.push_str(&format!(" else{other} if {{\n"));
                let mut bound = vec!["p".to_owned(), "q".to_owned()];
                self.statements(&mut bound, 1, number + 1);
                self.text.push('}');
            }
            self.text.push_str("\n\n");
        }
    }

    /// `depth` bounds nesting; functions from `level` on may be called.
    fn statements(&mut self, bound: &mut Bound, depth: usize, level: usize) {
        let number = 1 + self.choices.below(3);
        for _ in 0..number {
            self.text.push_str("    ");
            self.statement(bound, depth, level);
            let end = if self.choices.below(8) == 0 { ";\n" } else { "\n" };
            self.text.push_str(end);
        }
        // A `;` in front of the closing brace is no Rego.
        if self.text.ends_with(";\n") {
            self.text.truncate(self.text.len() - 2);
            self.text.push('\n');
        }
    }

    fn statement(&mut self, bound: &mut Bound, depth: usize, level: usize) {
        match self.choices.below(16) {
            0 | 1 => {
                let expression = self.expression(bound, 2);
                let name = self.fresh();
                self.text.push_str(&format!("{name} := {expression}"));
                bound.push(name);
            }
            2 | 3 => {
                let collection = self.expression(bound, 1);
                let (key, value) = (self.fresh(), self.fresh());
                if self.choices.below(2) == 0 {
                    self.text.push_str(&format!("some {value} in {collection}"));
                } else {
                    self.text.push_str(&format!("some {key}, {value} in {collection}"));
                    bound.push(key);
                }
                bound.push(value);
            }
            4 | 5 if depth < 3 => {
                let collection = self.expression(bound, 1);
                let (key, value) = (self.fresh(), self.fresh());
                let mut inside = bound.clone();
                if self.choices.below(2) == 0 {
                    self.text.push_str(&format!("every {value} in {collection} {{\n"));
                } else {
                    self.text.push_str(&format!("every {key}, {value} in {collection} {{\n"));
                    inside.push(key);
                }
                inside.push(value);
                self.statements(&mut inside, depth + 1, level);
                self.text.push_str("    }");
            }
            6 | 7 => {
                let condition = self.condition(bound);
                self.text.push_str(&format!("not {condition}"));
            }
            8 | 9 if self.prints => self.print(bound),
            10 if level < 3 => {
                let call = self.call(bound, level);
                let not = if self.choices.below(3) == 0 { "not " } else { "" };
                self.text.push_str(&format!("{not}{call}"));
            }
            11 if level < 3 => {
                let call = self.call(bound, level);
                let other = self.expression(bound, 1);
                self.text.push_str(&format!("{call} == {other}"));
            }
            12 => {
                let collection = self.reference(bound);
                let other = self.expression(bound, 1);
                self.text.push_str(&format!("{collection}[_] == {other}"));
            }
            13 => {
                let collection = self.reference(bound);
                let name = self.fresh();
                let other = self.expression(bound, 1);
                self.text.push_str(&format!("some {name}\n    {collection}[{name}] == {other}"));
                bound.push(name);
            }
            _ => {
                let condition = self.condition(bound);
                self.text.push_str(&condition);
            }
        }
    }

    fn print(&mut self, bound: &Bound) {
        let arguments: Vec<String> = (0..self.choices.below(3)).map(|_| self.expression(bound, 1)).collect();
        let form = self.pick(&[
            "print(\"é\", {})",
            "print({})",
            "print(\n        {}\n    )",
            "print({}) # print",
            "not print({})",
        ]);
        let arguments = if arguments.is_empty() { "\"a; b\"".to_owned() } else { arguments.join(", ") };
        self.text.push_str(&form.replace("{}", &arguments));
    }

    fn call(&mut self, bound: &Bound, level: usize) -> String {
        let number = level + self.choices.below(3 - level);
        let (left, right) = (self.expression(bound, 1), self.expression(bound, 1));
        format!("f{number}({left}, {right})")
    }

    fn condition(&mut self, bound: &Bound) -> String {
        let left = self.expression(bound, 1);
        let right = self.expression(bound, 1);
        match self.choices.below(9) {
            0 => format!("{left} != {right}"),
            1 => format!("{left} in {right}"),
            2 => format!("is_null({left})"),
            3 => left,
            4 => format!("startswith({left}, \"x\")"),
            5 => format!("count({left}) > 0"),
            6 => format!("{left} < {right}"),
            _ => format!("{left} == {right}"),
        }
    }

    fn reference(&mut self, bound: &Bound) -> String {
        let mut text = if bound.is_empty() || self.choices.below(3) == 0 {
            self.pick(&["input.a", "input.o", "input.s", "input.z", "c0", "c1", "input.o.y"]).to_owned()
        } else {
            bound[self.choices.below(bound.len())].clone()
        };
        match self.choices.below(6) {
            0 => text.push_str(".x"),
            1 => text.push_str("[0]"),
            2 if !bound.is_empty() => text.push_str(&format!("[{}]", bound[self.choices.below(bound.len())])),
            _ => {}
        }
        text
    }

    fn expression(&mut self, bound: &Bound, depth: usize) -> String {
        match self.choices.below(if depth > 1 { 18 } else { 11 }) {
            0 => "\"x\"".to_owned(),
            1 => self.pick(&["1", "0", "true", "null", "\"y\"", "c2", "input.n"]).to_owned(),
            2 => self
                .pick(&["[\"x\"]", "{\"x\"}", "{\"x\": \"y\"}", "[]", "set()", "[\"x\", \"y\"]"])
                .to_owned(),
            3 => {
                let inner = self.reference(bound);
                format!("count({inner})")
            }
            4..=10 => self.reference(bound),
            11 => {
                let (left, right) = (self.reference(bound), self.reference(bound));
                format!("{{{left}}} | {{{right}}}")
            }
            12 => {
                let inner = self.reference(bound);
                format!("count({inner}) + 1")
            }
            13 => {
                let (left, right) = (self.reference(bound), self.pick(&["-", "+", "*", "/", "|", "&"]));
                format!("{left} {right} {}", self.reference(bound))
            }
            14 => {
                let inner = self.reference(bound);
                format!("replace({inner}, \"x\", \"y\")")
            }
            _ => self.comprehension(bound),
        }
    }

    fn comprehension(&mut self, bound: &Bound) -> String {
        let before = std::mem::take(&mut self.text);
        let mut inside = bound.clone();
        let collection = self.reference(bound);
        let name = self.fresh();
        self.text.push_str(&format!("some {name} in {collection}\n"));
        inside.push(name);
        self.statement(&mut inside, 3, 5);
        let body = std::mem::replace(&mut self.text, before);
        let term = self.reference(&inside);
        let (open, close) = if self.choices.below(2) == 0 { ('[', ']') } else { ('{', '}') };
        format!("{open}{term} | {body}\n    {close}")
    }
}
