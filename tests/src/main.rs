//! `lab`: one binary for everything that a lab router runs; see [`lab::applet`].

fn main() -> std::process::ExitCode {
    lab::applet::main()
}
