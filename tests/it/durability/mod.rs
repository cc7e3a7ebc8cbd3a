//! What was answered 202 outlives kills, signals, killers, full disks and failed commits.

mod commit;
mod disk;
mod file;
mod full;
mod kills;
mod poison;
mod sigterm;
