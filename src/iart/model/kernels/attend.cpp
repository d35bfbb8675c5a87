// softmax(Q K^T / sqrt(d) + B) V in float32, for every window and head; compiled by kernels.py.
//
// A vector runs over queries: maxima and sums over keys then need no step across its lanes, and
// what belongs to a key is a scalar. A block of queries keeps its logits in the innermost cache.

#include "vectors.h"

// Sums in registers: KEYS x BLOCK vectors of logits, CHANNELS x BLOCK of outputs.
#if defined(__AVX512F__)
constexpr int BLOCK = 3, KEYS = 8, CHANNELS = 10;
#else
constexpr int BLOCK = 2, KEYS = 6, CHANNELS = 5;
#endif

template <int V>
struct Rows {
    float (*row)[V * LANES];
    Lanes &operator()(int64_t i, int v) const { return *(Lanes *)(row[i] + v * LANES); }
};
template <int N>
struct Count {
    enum { value = N };
};

// (windows heads cells channels), channels side by side; strides in numbers.
struct Map {
    float *data;
    int64_t window, head, row;
    float *at(int64_t s, int64_t n) const { return data + s * window + n * head; }
};
struct Sizes {
    int64_t windows, heads, queries, keys, channels;
    float scale() const { return 1.0f / __builtin_sqrtf(channels); }
};

static inline Lanes larger(Lanes a, Lanes b) { return a > b ? a : b; }

// f(Count<N>, i) for i = 0, N, 2N ... and f(Count<1>, i) for the rest.
template <int N, class F>
static inline void in_steps(int64_t end, F f) {
    int64_t i = 0;
    for (; i + N <= end; i += N) f(Count<N>{}, i);
    for (; i < end; i++) f(Count<1>{}, i);
}

// Cells `first` ... of a head, turned: a row per channel.
template <int V>
static void load(Rows<V> to, const float *from, int64_t row, int64_t channels, float factor) {
    for (int64_t i = 0; i < V * LANES; i++)
        for (int64_t c = 0; c < channels; c++) to.row[c][i] = from[i * row + c] * factor;
}
template <int V>
static void store(float *to, int64_t row, Rows<V> from, int64_t channels) {
    for (int64_t i = 0; i < V * LANES; i++)
        for (int64_t c = 0; c < channels; c++) to[i * row + c] = from.row[c][i];
}

// out[j] = left[j] . right, and bias[j] if there is one.
template <int V>
static void dot(Rows<V> out, const float *left, int64_t left_row, Rows<V> right, const float *bias,
                int64_t bias_row, int64_t keys, int64_t channels) {
    in_steps<KEYS>(keys, [&](auto count, int64_t j) __attribute__((always_inline)) {
        constexpr int N = decltype(count)::value;
        Lanes sum[N][V] = {};
        if (bias)
            for (int a = 0; a < N; a++)
                for (int v = 0; v < V; v++)
                    sum[a][v] = *(Lanes *)(bias + (j + a) * bias_row + v * LANES);
        for (int64_t c = 0; c < channels; c++)
            for (int a = 0; a < N; a++)
                for (int v = 0; v < V; v++) sum[a][v] += left[(j + a) * left_row + c] * right(c, v);
        for (int a = 0; a < N; a++)
            for (int v = 0; v < V; v++) out(j + a, v) = sum[a][v];
    });
}

// Softmax over the rows, but for a factor, which is given back.
template <int V>
static void softmax(Rows<V> weight, int64_t keys, Lanes *factor) {
    Lanes highest[V], total[V] = {};
    for (int v = 0; v < V; v++) highest[v] = weight(0, v);
    for (int64_t j = 1; j < keys; j++)
        for (int v = 0; v < V; v++) highest[v] = larger(highest[v], weight(j, v));
    for (int64_t j = 0; j < keys; j++)
        for (int v = 0; v < V; v++)
            total[v] += weight(j, v) = exponential(weight(j, v) - highest[v]);
    for (int v = 0; v < V; v++) factor[v] = 1.0f / total[v];
}

// out[c] = factor * sum over j of left[j][c] * weight[j].
template <int V>
static void mix(Rows<V> out, Rows<V> weight, const float *left, int64_t left_row, int64_t keys,
                int64_t channels, const Lanes *factor) {
    in_steps<CHANNELS>(channels, [&](auto count, int64_t c) __attribute__((always_inline)) {
        constexpr int N = decltype(count)::value;
        Lanes sum[N][V] = {};
        for (int64_t j = 0; j < keys; j++)
            for (int a = 0; a < N; a++)
                for (int v = 0; v < V; v++) sum[a][v] += left[j * left_row + c + a] * weight(j, v);
        for (int a = 0; a < N; a++)
            for (int v = 0; v < V; v++) out(c + a, v) = sum[a][v] * factor[v];
    });
}

template <int V>
static void attend(Map out, Map query, Map key, Map value, const float *bias, Sizes size, int64_t s,
                   int64_t n, int64_t first, float *scratch) {
    Rows<V> columns{(float(*)[V * LANES])scratch}, weight{columns.row + size.channels};
    Lanes factor[V];
    load<V>(columns, query.at(s, n) + first * query.row, query.row, size.channels, size.scale());
    dot<V>(weight, key.at(s, n), key.row, columns, bias + n * size.keys * size.queries + first,
           size.queries, size.keys, size.channels);
    softmax<V>(weight, size.keys, factor);
    mix<V>(columns, weight, value.at(s, n), value.row, size.keys, size.channels, factor);
    store<V>(out.at(s, n) + first * out.row, out.row, columns, size.channels);
}

// sum[j] += sum over i of weight[j][i] * right[i], W vectors of rows that have `width` numbers.
template <int W, int V>
static inline void add_columns(float *sum, Rows<V> weight, const float *right, int64_t width,
                               int64_t keys) {
    in_steps<KEYS * BLOCK / W>(keys, [&](auto count, int64_t j) __attribute__((always_inline)) {
        constexpr int N = decltype(count)::value;
        Lanes more[N][W] = {};
        for (int64_t i = 0; i < V * LANES; i++)
            for (int a = 0; a < N; a++)
                for (int w = 0; w < W; w++)
                    more[a][w] += weight.row[j + a][i] * *(Lanes *)(right + i * width + w * LANES);
        for (int a = 0; a < N; a++)
            for (int w = 0; w < W; w++) *(Lanes *)(sum + (j + a) * width + w * LANES) += more[a][w];
    });
}
template <int V>
static void add(float *sum, Rows<V> weight, const float *right, int64_t width, int64_t keys) {
    int64_t c = 0;
    for (; c + 2 * LANES <= width; c += 2 * LANES)
        add_columns<2>(sum + c, weight, right + c, width, keys);
    for (; c < width; c += LANES) add_columns<1>(sum + c, weight, right + c, width, keys);
}

// What a block of queries adds to the gradients of keys, values (rows of `width`) and bias, and the
// queries' own.
struct Sums {
    float *key, *value, *bias;
    int64_t width;
};
template <int V>
static void differentiate(Map query, Map key, Map value, Map grad, Map query_grad,
                          const float *bias, Sums sums, Sizes size, int64_t s, int64_t n,
                          int64_t first, float *scratch) {
    const int64_t width = sums.width;
    float *right = scratch;  // a row of whole vectors for each query
    Rows<V> queries{(float(*)[V * LANES])(right + V * LANES * width)};
    Rows<V> grads{queries.row + size.channels};
    Rows<V> weight{grads.row + size.channels}, change{weight.row + size.keys};
    const float *from = query.at(s, n) + first * query.row;
    const float *back = grad.at(s, n) + first * grad.row;
    Lanes factor[V], mean[V] = {}, scale[V];

    load<V>(queries, from, query.row, size.channels, size.scale());
    load<V>(grads, back, grad.row, size.channels, 1.0f);
    dot<V>(weight, key.at(s, n), key.row, queries, bias + n * size.keys * size.queries + first,
           size.queries, size.keys, size.channels);
    softmax<V>(weight, size.keys, factor);
    dot<V>(change, value.at(s, n), value.row, grads, nullptr, 0, size.keys, size.channels);
    for (int64_t j = 0; j < size.keys; j++)
        for (int v = 0; v < V; v++) mean[v] += (weight(j, v) *= factor[v]) * change(j, v);
    for (int64_t j = 0; j < size.keys; j++)
        for (int v = 0; v < V; v++) {
            change(j, v) = weight(j, v) * (change(j, v) - mean[v]);
            *(Lanes *)(sums.bias + j * size.queries + first + v * LANES) += change(j, v);
        }

    for (int64_t i = 0; i < V * LANES; i++)
        for (int64_t c = 0; c < size.channels; c++) right[i * width + c] = back[i * grad.row + c];
    add<V>(sums.value, weight, right, width, size.keys);
    for (int64_t i = 0; i < V * LANES; i++)
        for (int64_t c = 0; c < size.channels; c++) right[i * width + c] = queries.row[c][i];
    add<V>(sums.key, change, right, width, size.keys);
    for (int v = 0; v < V; v++) scale[v] = all(size.scale());
    mix<V>(queries, change, key.at(s, n), key.row, size.keys, size.channels, scale);
    store<V>(query_grad.at(s, n) + first * query_grad.row, query_grad.row, queries, size.channels);
}

// Queries come in whole vectors.
extern "C" int iart_lanes() { return LANES; }

// bias: (heads keys queries), contiguous.
extern "C" void iart_attend(Map out, Map query, Map key, Map value, const float *bias, Sizes size,
                            int threads) {
#pragma omp parallel num_threads(threads)
    {
        float *scratch = numbers(BLOCK * LANES * (size.channels + size.keys));
#pragma omp for collapse(2) schedule(static)
        for (int64_t n = 0; n < size.heads; n++)
            for (int64_t s = 0; s < size.windows; s++) {
                int64_t i = 0;
                for (; i + BLOCK * LANES <= size.queries; i += BLOCK * LANES)
                    attend<BLOCK>(out, query, key, value, bias, size, s, n, i, scratch);
                for (; i < size.queries; i += LANES)
                    attend<1>(out, query, key, value, bias, size, s, n, i, scratch);
            }
        free(scratch);
    }
}

// Gradients from that of `out`. bias_grad: (parts heads keys queries), zeros; each part gets what a
// share of the windows gives.
extern "C" void iart_differentiate(Map query, Map key, Map value, Map grad, Map query_grad,
                                   Map key_grad, Map value_grad, const float *bias, float *bias_grad,
                                   Sizes size, int parts, int threads) {
    const int64_t width = (size.channels + LANES - 1) / LANES * LANES, sum = size.keys * width;
#pragma omp parallel num_threads(threads)
    {
        const int64_t columns = 2 * (size.channels + size.keys);
        float *sums = numbers(2 * sum), *scratch = numbers(BLOCK * LANES * (width + columns));
        for (int64_t i = 0; i < BLOCK * LANES * width; i++) scratch[i] = 0;
#pragma omp for collapse(2) schedule(static)
        for (int64_t p = 0; p < parts; p++)
            for (int64_t n = 0; n < size.heads; n++) {
                Sums of{sums, sums + sum, bias_grad + (p * size.heads + n) * size.keys * size.queries,
                        width};
                const int64_t end = (p + 1) * size.windows / parts;
                for (int64_t s = p * size.windows / parts; s < end; s++) {
                    for (int64_t i = 0; i < 2 * sum; i++) sums[i] = 0;
                    int64_t i = 0;
                    for (; i + BLOCK * LANES <= size.queries; i += BLOCK * LANES)
                        differentiate<BLOCK>(query, key, value, grad, query_grad, bias, of, size, s,
                                             n, i, scratch);
                    for (; i < size.queries; i += LANES)
                        differentiate<1>(query, key, value, grad, query_grad, bias, of, size, s, n,
                                         i, scratch);
                    for (int64_t j = 0; j < size.keys; j++)
                        for (int64_t c = 0; c < size.channels; c++) {
                            key_grad.at(s, n)[j * key_grad.row + c] = of.key[j * width + c];
                            value_grad.at(s, n)[j * value_grad.row + c] = of.value[j * width + c];
                        }
                }
            }
        free(sums);
        free(scratch);
    }
}
