//! KBS client: RCAR 0.4.0.
