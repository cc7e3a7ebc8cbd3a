//! What only this store has.
