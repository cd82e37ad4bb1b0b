//! The program over real sockets, against emulated platforms: what is released, what is refused, why.

#[cfg(test)]
mod administration;
#[cfg(test)]
mod client;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod guests;
#[cfg(test)]
mod platform;
#[cfg(test)]
mod process;
#[cfg(test)]
mod refusals;
