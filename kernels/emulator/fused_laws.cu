// The parts of a chain, one after the other in one block, as `solve` calls them: for the tests of src/cuda/fused/tests.rs, which look at
// what they leave behind.
#include "../fused.cuh"

/// Points by number, as they pass: all that are decoded, those with an adjoint, those with tangents.
struct ChainLaw {
    FusedNetwork network;
    FusedPoints points;
    float* halo;       // [heads, d, W]
    const u32* list;   // [decoded + adjoints + tangents]
    const u32* curved; // by point number: whether S is wanted
    u32 decoded, adjoints, tangents;
    /// So many times over, as rounds of a search are: the last leaves what is looked at.
    u32 rounds;
};

template <template <u32> class Product, u32 W>
DEVICE void pass_chain(const ChainLaw& p, Shared<float> memory) {
    using Chain = Fused<Product<W>, W, 0, ANY>;
    SHARED(u32, ids, Chain::ROWS);
    Product<W> product(memory + Chain::ROWS * W, p.network.stages);
    if (!product.begin()) return;
    Chain chain{p.network, p.points, {memory}, product, ids, p.halo};
    chain.settle();
    const auto wants_curvature = [&](u32 id) { return p.curved[id] != 0; };
    const u32 *with_adjoint = p.list + p.decoded, *with_tangents = with_adjoint + p.adjoints;
    for (u32 round = 0; round < p.rounds; round++) {
        chain.template forward<TF32X3>(p.list, p.decoded);
        chain.template adjoint<TF32X3>(with_adjoint, p.adjoints, wants_curvature);
        chain.template tangents<TF32X3>(with_tangents, p.tangents, wants_curvature);
    }
    product.end();
}

#define LAW_CHAIN(name, Product, W)                           \
    KERNEL(name, ChainLaw, Product<W>::THREADS, 1) {          \
        DYNAMIC_SHARED(float, memory);                        \
        pass_chain<Product, W>(p, memory);                    \
    }
LAW_CHAIN(law_chain_64, Products, 64)
LAW_CHAIN(law_chain_128, Products, 128)
LAW_CHAIN(law_chain_128_sm90, ProductsSm90, 128)
