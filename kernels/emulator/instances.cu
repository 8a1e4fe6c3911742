// Kernels for the sizes of one small decoder, 2 → 64 → 64 → 64 with tanh, as the host asks a compiler for them at run time: so that tests
// reach those kernels, and the code that picks them, without a GPU.
DECODE_INSTANCE(decode_2_64_tanh, 2, 64, TANH)
DECODE_INSTANCE(decode_64_64_tanh, 64, 64, TANH)
DECODE_INSTANCE(decode_64_64_identity, 64, 64, IDENTITY)
JACOBIAN_INSTANCE(jacobian_2_64_64, 2, 64, 64)
ADJOINT_INSTANCE(adjoint_64_64, 64, 64)
GRAM_INSTANCE(gram_2, 2)
NEIGHBOUR_INSTANCE(neighbour_2, 2)
GRADIENT_INSTANCE(gradient_2, 2)
STEP_INSTANCE(step_2, 2)
// Steps with each small d.
STEP_INSTANCE(step_1, 1)
STEP_INSTANCE(step_3, 3)
STEP_INSTANCE(step_4, 4)
// Steps by the other kind of team than `step` takes for that d.
INSTANCE(step_3_by_blocks, Batch, STEP_THREADS, 2) {
    SHARED(double, scratch, 1);
    DYNAMIC_SHARED(float, work);
    step_curves<3>(p, BlockTeam{scratch}, work, blockIdx.x, gridDim.x);
}
INSTANCE(step_by_warps, Batch, STEP_THREADS, 2) {
    DYNAMIC_SHARED(float, work);
    step_curves<0>(p, WarpTeam(), work + threadIdx.x / WARP * solve_workspace(p.latent_dim), grid_warp(), grid_warps());
}

// Fused kernels of every precision, which on a GPU are compiled for one decoder at run time: of the same decoder, and for all decoders of two
// widths, one in each build.
SOLVE_INSTANCE(solve_64_tf32x3_2_tanh, Products, 64, TF32X3, false, 2, TANH)
OVER_POINTS_INSTANCE(over_points_64_tf32x3_2_tanh, Products, 64, TF32X3, 2, TANH)
SOLVE_INSTANCE(solve_64_tf32, Products, 64, TF32, false, 0, ANY)
SOLVE_INSTANCE(solve_64_bf16, Products, 64, BF16, false, 0, ANY)
SOLVE_INSTANCE(solve_64_mixed, Products, 64, TF32X3, true, 0, ANY)
OVER_POINTS_INSTANCE(over_points_64_tf32, Products, 64, TF32, 0, ANY)
OVER_POINTS_INSTANCE(over_points_64_bf16, Products, 64, BF16, 0, ANY)
SOLVE_INSTANCE(solve_128_mixed, Products, 128, TF32X3, true, 0, ANY)
SOLVE_INSTANCE(solve_128_tf32_sm90, ProductsSm90, 128, TF32, false, 0, ANY)
SOLVE_INSTANCE(solve_128_bf16_sm90, ProductsSm90, 128, BF16, false, 0, ANY)
SOLVE_INSTANCE(solve_128_mixed_sm90, ProductsSm90, 128, TF32X3, true, 0, ANY)
OVER_POINTS_INSTANCE(over_points_128_tf32_sm90, ProductsSm90, 128, TF32, 0, ANY)
OVER_POINTS_INSTANCE(over_points_128_bf16_sm90, ProductsSm90, 128, BF16, 0, ANY)
