use super::*;

/// NVRTC, or a line that says what was not tested.
fn present() -> Option<&'static Compiler> {
    compiler().inspect_err(|reason| println!("skipped: {reason}")).ok()
}

#[test]
fn every_kernel_compiles_for_every_architecture() {
    let Some(compiler) = present() else { return };
    for architecture in ["sm_80", "sm_90a", "sm_100"] {
        let code = compiler.compile(architecture, "").unwrap_or_else(|error| panic!("{error}"));
        assert!(code.starts_with(b"\x7fELF"), "{architecture}");
        // For `scripts/check-kernels`, which reads registers and spills from it.
        if let Some(folder) = std::env::var_os("PULLBACK_CUBINS") {
            std::fs::write(std::path::Path::new(&folder).join(format!("{architecture}.cubin")), &code).unwrap();
        }
        for name in sources::kernels() {
            let wanted = !sources::is_fused(name);
            // A name ends with a zero byte: it is no other name's beginning.
            let held = code.windows(name.len() + 1).any(|window| window.split_last() == Some((&0, name.as_bytes())));
            assert_eq!(held, wanted, "whether {name} is in the code for {architecture}");
        }
    }
}

#[test]
fn instances_stand_behind_the_sources() {
    let Some(compiler) = present() else { return };
    let instances = "#ifdef PULLBACK_SPECIALISED\nextern \"C\" __global__ void instance(u32* to) { *to = divide_up(7u, 2u); }\n#endif";
    let code = compiler.compile("sm_90a", instances).unwrap_or_else(|error| panic!("{error}"));
    assert!(code.windows(8).any(|window| window == b"instance"));
}

#[test]
fn an_error_carries_the_log() {
    let Some(compiler) = present() else { return };
    let error = compiler.compile("sm_80", "int broken = ;").unwrap_err();
    assert!(matches!(error, Error::Compile { .. }) && !error.is_input());
    let message = error.to_string();
    assert!(message.starts_with("kernels for sm_80: NVRTC_ERROR_COMPILATION\n"), "{message}");
    assert!(message.contains("expected an expression"), "{message}");

    let message = compiler.compile("sm_80", "a\0b").unwrap_err().to_string();
    assert_eq!(message, "kernels for sm_80: a zero byte in the sources");
}

#[test]
fn the_architecture_is_the_gpus_or_the_nearest_earlier_of_its_generation() {
    let Some(compiler) = present() else { return };
    for (compute, expected) in
        [((8, 0), "sm_80"), ((8, 9), "sm_89"), ((9, 0), "sm_90a"), ((9, 9), "sm_90"), ((10, 0), "sm_100")]
    {
        assert_eq!(compiler.architecture(compute).unwrap(), expected);
    }
    let message = compiler.architecture((99, 0)).unwrap_err().to_string();
    assert!(message.starts_with("kernels for sm_990: NVRTC "), "{message}");
}
