// Vectors of floats, as wide as the processor has them.
#pragma once

#include <cstdint>
#include <cstdlib>

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
#error "without AVX2, PyTorch's operations are faster"
#endif

typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Integers __attribute__((vector_size(4 * LANES)));

// `count` numbers, a whole number of vectors.
static float *numbers(int64_t count) {
    return (float *)aligned_alloc(4 * LANES, (count + LANES - 1) / LANES * LANES * sizeof(float));
}

static inline Lanes all(float x) { return x - Lanes{}; }

// e^x for x <= 0: 2^n e^r with n = round(x / ln 2), and e^r by its series.
static inline Lanes exponential(Lanes x) {
    constexpr float ROUND = 0x1.8p23f;  // a sum with it has no bits left for fractions
    x = x < -87.0f ? all(-87.0f) : x;   // below, 2^n is no normal number; what is NaN stays so
    Lanes shifted = x * 0x1.715476p0f + ROUND;
    Lanes n = shifted - ROUND;
    Lanes r = x - n * 0x1.62e4p-1f - n * 0x1.7f7d1cp-20f;  // ln 2 in two parts
    Lanes y = all(1.0f / 720);
    y = y * r + 1.0f / 120;
    y = y * r + 1.0f / 24;
    y = y * r + 1.0f / 6;
    y = y * r + 0.5f;
    y = y * r + 1.0f;
    y = y * r + 1.0f;
    return y * (Lanes)(((Integers)shifted - (Integers)all(ROUND) + 127) << 23);
}
