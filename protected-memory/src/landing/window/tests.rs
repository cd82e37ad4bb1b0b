use std::num::NonZeroUsize;

use super::{Segments, Window};

#[test]
fn segments_are_disjoint_and_cover_the_file() {
    for (len, segment) in [(0, 4), (1, 4), (4, 4), (5, 4), (8, 4), (9, 100)] {
        let mut bytes = vec![0; len];
        let segments = Segments::new(Window::new(0, &mut bytes), NonZeroUsize::new(segment).unwrap());
        assert_eq!(segments.len(), len.div_ceil(segment));
        let mut offset = 0;
        for mut window in segments {
            assert_eq!(window.offset(), offset);
            offset += window.len() as u64;
            window.bytes_mut().iter_mut().for_each(|byte| *byte += 1);
        }
        assert_eq!(offset, len as u64);
        assert!(bytes.iter().all(|byte| *byte == 1));
    }
}

#[test]
fn window_splits_where_asked_and_no_further() {
    let mut bytes = [1, 2, 3];
    let mut window = Window::new(10, &mut bytes);
    assert!(window.split_front(4).is_none());
    assert_eq!(window.len(), 3);
    let mut front = window.split_front(2).unwrap();
    assert_eq!((front.offset(), front.bytes_mut().to_vec()), (10, vec![1, 2]));
    assert_eq!((window.offset(), window.bytes_mut().to_vec()), (12, vec![3]));
    assert_eq!(format!("{window:?}"), "Window { offset: 12, len: 1, .. }");
}
