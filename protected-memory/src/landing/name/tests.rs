use super::{FILE_NAME_MAX_BYTES, FileName};

fn refused(name: &str) {
    assert_eq!(FileName::parse(name).unwrap_err().code(), "MEM-001", "{name:?}");
}

#[test]
fn usual_file_names_are_accepted() {
    let longest = "x".repeat(FILE_NAME_MAX_BYTES);
    for name in ["model.safetensors", "a", "...", "..x", ".hidden", "größe", "a b", &longest] {
        assert_eq!(FileName::parse(name).unwrap().as_str(), name);
    }
}

#[test]
fn evil_empty_file_name_is_refused() {
    refused("");
}

#[test]
fn evil_long_file_name_is_refused() {
    refused(&"x".repeat(FILE_NAME_MAX_BYTES + 1));
    // Bytes count, not characters.
    refused(&"ß".repeat(128));
}

#[test]
fn evil_dot_file_name_is_refused() {
    refused(".");
    refused("..");
}

#[test]
fn evil_slash_in_file_name_is_refused() {
    for name in ["../x", "/etc/passwd", "a/b", "a/", "/"] {
        refused(name);
    }
}

#[test]
fn evil_control_character_in_file_name_is_refused() {
    for name in ["a\0b", "\0", "a\nb", "\u{1b}[2J", "\u{7f}"] {
        refused(name);
    }
}
