// One step of a decoder of the Llama family (Llama, Mistral, Qwen2, Qwen3) for a ragged batch, on a processor.
//
// Every sum that is longer than a vector is one chain, in the order of its terms, whatever else is computed beside it
// and by however many threads: so a row's result is the same bits in any company.
//
// All products are made of one kernel, `tile`: rows of lanes times columns of lanes. A lane is 32 bits: one float, or
// two bfloat16 that follow each other along the sum. Weights lie in panels of 64 outputs, [panel][lane of the
// sum][output]. Keys lie in a block as such a panel, [lane of the head][position], and values as another, [lane of the
// positions][element of the head], so that attention is made of the same kernel. Activations are floats; what goes into
// a product is rounded to the weights' type. Softmax goes over blocks of 64 keys (online: Milakov and Gimelshein 2018).

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif
#if defined(_OPENMP)
#include <omp.h>
#endif

namespace {

typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint32_t Lane;

constexpr int WIDTH = 16;   // lanes of a vector
constexpr int PANEL = 64;   // outputs of a panel
constexpr int BLOCK = 64;   // positions of a block
constexpr int ROWS = 6;     // rows of a tile at most: 24 sums, 4 columns and a row's lane fit into 32 registers
constexpr int LONGEST = 256;  // elements of a head at most
constexpr float NOTHING = -std::numeric_limits<float>::infinity();

Floats all(float x) { return Floats{} + x; }

template <class To, class From> To as(From bits) {
    static_assert(sizeof(To) == sizeof(From), "bits of one size");
    To to;
    std::memcpy(&to, &bits, sizeof to);
    return to;
}

template <class V, class T> V load(const T *from) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

template <class V, class T> void store(T *to, V v) { std::memcpy(to, &v, sizeof v); }

// -- numbers of one type: float, or bfloat16 in pairs

struct Full {
    static constexpr int EACH = 1;  // numbers of a lane

    static Floats add(Floats sum, Lane row, Ints column) { return as<Floats>(column) * all(as<float>(row)) + sum; }

    static void put(Lane *to, Floats x) { store(to, x); }

    static void put(Lane *to, size_t place, float x) { std::memcpy(to + place, &x, sizeof x); }

    static float get(const void *from, size_t place) { return static_cast<const float *>(from)[place]; }
};

struct Half {
    static constexpr int EACH = 2;

    static uint16_t rounded(float x) {
        const uint32_t bits = as<uint32_t>(x);
        if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 0x40);  // no number
        return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }

#if defined(__AVX512BF16__)
    static Floats add(Floats sum, Lane row, Ints column) {
        const __m512i lanes = _mm512_set1_epi32(static_cast<int>(row));
        return as<Floats>(_mm512_dpbf16_ps(as<__m512>(sum), as<__m512bh>(column), as<__m512bh>(lanes)));
    }

    static void put(Lane *to, Floats x) { store(to, _mm512_cvtneps_pbh(as<__m512>(x))); }
#else
    static Floats add(Floats sum, Lane row, Ints column) {
        const Floats low = as<Floats>(column << 16), high = as<Floats>(column & static_cast<int32_t>(0xffff0000));
        sum = low * all(as<float>(row << 16)) + sum;
        return high * all(as<float>(row & 0xffff0000)) + sum;
    }

    static void put(Lane *to, Floats x) {
        uint16_t numbers[WIDTH];
        for (int i = 0; i < WIDTH; i++) numbers[i] = rounded(x[i]);
        std::memcpy(to, numbers, sizeof numbers);
    }
#endif

    static void put(Lane *to, size_t place, float x) {
        const uint16_t number = rounded(x);
        std::memcpy(reinterpret_cast<uint16_t *>(to) + place, &number, sizeof number);
    }

    static float get(const void *from, size_t place) {
        return as<float>(static_cast<uint32_t>(static_cast<const uint16_t *>(from)[place]) << 16);
    }
};

// -- the kernel

// sums[r][v] += rows[r] . columns[v], over `lanes` lanes.
template <class T, int R, int V>
inline void tile(const Lane *rows, size_t row, const Lane *columns, size_t column, int lanes, Floats (*sums)[V]) {
    Floats sum[R][V];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) sum[r][v] = sums[r][v];
    for (int i = 0; i < lanes; i++) {
        Ints c[V];
        for (int v = 0; v < V; v++) c[v] = load<Ints>(columns + i * column + v * WIDTH);
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) sum[r][v] = T::add(sum[r][v], rows[r * row + i], c[v]);
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) sums[r][v] = sum[r][v];
}

template <class T, int V>
void tiles(int count, const Lane *rows, size_t row, const Lane *columns, size_t column, int lanes, Floats (*sums)[V]) {
    switch (count) {
        case 1: return tile<T, 1, V>(rows, row, columns, column, lanes, sums);
        case 2: return tile<T, 2, V>(rows, row, columns, column, lanes, sums);
        case 3: return tile<T, 3, V>(rows, row, columns, column, lanes, sums);
        case 4: return tile<T, 4, V>(rows, row, columns, column, lanes, sums);
        case 5: return tile<T, 5, V>(rows, row, columns, column, lanes, sums);
        default: return tile<T, 6, V>(rows, row, columns, column, lanes, sums);
    }
}

// -- functions of single numbers, and of one row

// exp(x) to about one unit in the last place, for x from -87 to 88: 2^n times a polynomial (Cephes, expf).
Floats exponential(Floats x) {
    x = x < all(-87.0f) ? all(-87.0f) : x;
    x = x > all(88.0f) ? all(88.0f) : x;
    const Floats shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the whole part stands in the low bits
    const Floats n = shifted - 12582912.0f;
    const Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Floats p = all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * as<Floats>((as<Ints>(shifted) - 0x4b400000 + 127) << 23);
}

float total(Floats x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps(as<__m512>(x));
#else
    for (int half = WIDTH / 2; half; half /= 2)
        for (int i = 0; i < half; i++) x[i] += x[i + half];
    return x[0];
#endif
}

float greatest(Floats x) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps(as<__m512>(x));
#else
    for (int half = WIDTH / 2; half; half /= 2)
        for (int i = 0; i < half; i++) x[i] = x[i] > x[i + half] ? x[i] : x[i + half];
    return x[0];
#endif
}

// 1 / sqrt(mean(x^2) + eps), of `width` numbers (Zhang and Sennrich 2019).
float root(const float *x, int64_t width, float eps) {
    Floats squares{};
    for (int64_t i = 0; i < width; i += WIDTH) {
        const Floats v = load<Floats>(x + i);
        squares = v * v + squares;
    }
    return 1.0f / __builtin_sqrtf(total(squares) / static_cast<float>(width) + eps);
}

}  // namespace

// -- what Python gives, see `library.py`

extern "C" {

struct Layer {
    const float *before, *between, *query_norm, *key_norm;  // weights of norms; those of queries and keys may be null
    const Lane *qkv, *out, *gate_up, *down;                 // panels; 32 gates and their 32 ups in one
    const float *qkv_bias, *out_bias;                       // may be null
    int64_t window;                                         // positions that a query sees; 0: all before it
};

struct Model {
    int64_t hidden, inner, heads, kv_heads, size, layers, vocabulary, positions;
    float eps, scale;
    const void *table;                 // [vocabulary, hidden], of the weights' type
    const float *turns;                // [positions, 2, size / 2]: cosines, sines
    const float *norm;
    const Lane *head;
    const Layer *layer;
};

struct Span {
    int64_t row, count, start, blocks, held;  // its `held` numbers of blocks begin at `blocks` in Step.blocks
};

struct Step {
    int64_t rows, spans, wanted, threads, stored;  // `stored`: blocks of the store
    const int32_t *ids, *blocks, *choose;
    const Span *span;
    void *store;      // [blocks, layers, 2, heads of keys, BLOCK, size]
    float *logits;    // [wanted, vocabulary]
    char *scratch;    // `scratch_bytes` of it, at a multiple of 64
};
}

namespace {

// Of `count` things those of thread `mine`: from the first up to the second.
struct Share {
    int64_t first, end;

    Share(int64_t count, int mine, int threads) : first(count * mine / threads), end(count * (mine + 1) / threads) {}
};

void wait_for_all() {
#if defined(_OPENMP)
#pragma omp barrier
#endif
}

// Memory for a step, cut from one piece; without one it only counts.
class Scratch {
public:
    explicit Scratch(char *memory) : memory(memory) {}

    template <class N> N *take(int64_t count) {
        N *found = memory ? reinterpret_cast<N *>(memory + bytes) : nullptr;
        bytes += (count * static_cast<int64_t>(sizeof(N)) + 63) / 64 * 64;
        return found;
    }

    int64_t bytes = 0;

private:
    char *memory;
};

template <class T> class Forward {
public:
    Forward(const Model &m, const Step &s, Scratch scratch)
        : m(m), s(s), heads(m.heads + 2 * m.kv_heads), fold(m.heads / m.kv_heads),
          rows(scratch.take<float>(s.rows * m.hidden)),
          projected(scratch.take<float>(s.rows * heads * m.size)),
          normed(scratch.take<Lane>(s.rows * m.hidden / T::EACH)),
          queries(scratch.take<Lane>(s.rows * m.heads * m.size / T::EACH)),
          attended(scratch.take<Lane>(s.rows * m.heads * m.size / T::EACH)),
          acted(scratch.take<Lane>(s.rows * m.inner / T::EACH)),
          picked(scratch.take<Lane>(s.wanted * m.hidden / T::EACH)),
          bytes(scratch.bytes) {}

    void run(int mine, int threads) {
        const Share own(s.rows, mine, threads);
        for (int64_t r = own.first; r < own.end; r++) {
            for (int64_t i = 0; i < m.hidden; i++) rows[r * m.hidden + i] = T::get(m.table, s.ids[r] * m.hidden + i);
        }
        for (int64_t l = 0; l < m.layers; l++) layer(l, own, mine, threads);
        wait_for_all();
        const Share chosen(s.wanted, mine, threads);
        for (int64_t i = chosen.first; i < chosen.end; i++) norm(picked, i, s.choose[i], m.norm);
        wait_for_all();
        product(picked, s.wanted, m.hidden, m.head, m.vocabulary, mine, threads, [&](int64_t r, int64_t c, Floats *x) {
            float logits[PANEL];
            std::memcpy(logits, x, sizeof logits);
            std::memcpy(s.logits + r * m.vocabulary + c, logits, sizeof(float) * std::min<int64_t>(PANEL, m.vocabulary - c));
        });
    }

private:
    const Model &m;
    const Step &s;
    const int64_t heads, fold;
    float *const rows, *const projected;
    Lane *const normed, *const queries, *const attended, *const acted, *const picked;

public:
    const int64_t bytes;

private:
    void layer(int64_t l, const Share &own, int mine, int threads) {
        const Layer &w = m.layer[l];
        const int64_t width = heads * m.size;
        for (int64_t r = own.first; r < own.end; r++) norm(normed, r, r, w.before);
        wait_for_all();
        product(normed, s.rows, m.hidden, w.qkv, width, mine, threads, [&](int64_t r, int64_t c, Floats *x) {
            for (int v = 0; v < PANEL / WIDTH && c < width; v++, c += WIDTH)
                store(projected + r * width + c, w.qkv_bias ? x[v] + load<Floats>(w.qkv_bias + c) : x[v]);
        });
        wait_for_all();
        each_place(own, [&](int64_t r, int64_t position, int32_t block) { turn(w, l, r, position, block); });
        wait_for_all();
        attend(w, l, mine, threads);
        wait_for_all();
        add(attended, m.heads * m.size, w.out, w.out_bias, mine, threads);
        wait_for_all();
        for (int64_t r = own.first; r < own.end; r++) norm(normed, r, r, w.between);
        wait_for_all();
        product(normed, s.rows, m.hidden, w.gate_up, 2 * m.inner, mine, threads, [&](int64_t r, int64_t c, Floats *x) {
            for (int v = 0; v < 2; v++) {
                const Floats gate = x[v], up = x[v + 2];
                T::put(acted + (r * m.inner + c / 2 + v * WIDTH) / T::EACH, gate / (exponential(-gate) + 1.0f) * up);
            }
        });
        wait_for_all();
        add(acted, m.inner, w.down, nullptr, mine, threads);
        wait_for_all();
    }

    // One panel of outputs after the other, each for all rows: `what` gets the row, the first output and the panel.
    template <class What>
    void product(const Lane *from, int64_t count, int64_t inputs, const Lane *panels, int64_t outputs, int mine,
                 int threads, What what) {
        const int lanes = static_cast<int>(inputs / T::EACH);
        const Share own((outputs + PANEL - 1) / PANEL, mine, threads);
        for (int64_t p = own.first; p < own.end; p++) {
            const Lane *panel = panels + p * lanes * PANEL;
            for (int64_t r = 0; r < count; r += ROWS) {
                const int most = static_cast<int>(std::min<int64_t>(ROWS, count - r));
                Floats sums[ROWS][PANEL / WIDTH] = {};
                tiles<T, PANEL / WIDTH>(most, from + r * lanes, lanes, panel, PANEL, lanes, sums);
                for (int i = 0; i < most; i++) what(r + i, p * PANEL, sums[i]);
            }
        }
    }

    // rows += from . panels + bias
    void add(const Lane *from, int64_t inputs, const Lane *panels, const float *bias, int mine, int threads) {
        product(from, s.rows, inputs, panels, m.hidden, mine, threads, [&](int64_t r, int64_t c, Floats *x) {
            for (int v = 0; v < PANEL / WIDTH && c < m.hidden; v++, c += WIDTH) {
                float *to = rows + r * m.hidden + c;
                store(to, load<Floats>(to) + (bias ? x[v] + load<Floats>(bias + c) : x[v]));
            }
        });
    }

    void norm(Lane *to, int64_t place, int64_t r, const float *weight) {
        const float *x = rows + r * m.hidden;
        const float by = root(x, m.hidden, m.eps);
        for (int64_t i = 0; i < m.hidden; i += WIDTH)
            T::put(to + (place * m.hidden + i) / T::EACH, load<Floats>(x + i) * by * load<Floats>(weight + i));
    }

    template <class What> void each_place(const Share &own, What what) {
        for (int64_t i = 0; i < s.spans; i++) {
            const Span &span = s.span[i];
            const int64_t first = std::max(own.first, span.row), end = std::min(own.end, span.row + span.count);
            for (int64_t r = first; r < end; r++) {
                const int64_t position = span.start + r - span.row;
                what(r, position, s.blocks[span.blocks + position / BLOCK]);
            }
        }
    }

    // Where the keys (kind 0) or values (1) of a head are in a block.
    Lane *plane(int64_t block, int64_t l, int64_t kind, int64_t head) const {
        const int64_t number = ((block * m.layers + l) * 2 + kind) * m.kv_heads + head;
        return static_cast<Lane *>(s.store) + number * BLOCK * m.size / T::EACH;
    }

    // Turn the queries and keys of a row by its position (Su et al. 2021, halves as in Llama), and store keys, values.
    void turn(const Layer &w, int64_t l, int64_t r, int64_t position, int32_t block) {
        const int64_t size = m.size, half = size / 2, place = position % BLOCK;
        const float *cosines = m.turns + position * size, *sines = cosines + half;
        float *row = projected + r * heads * size;
        for (int64_t h = 0; h < m.heads + m.kv_heads; h++) {
            float *x = row + h * size;
            const float *weight = h < m.heads ? w.query_norm : w.key_norm;
            if (weight) {
                const float by = root(x, size, m.eps);
                for (int64_t i = 0; i < size; i++) x[i] = x[i] * by * weight[i];
            }
            for (int64_t i = 0; i < half; i++) {
                const float a = x[i], b = x[i + half];
                x[i] = a * cosines[i] - b * sines[i];
                x[i + half] = b * cosines[i] + a * sines[i];
            }
            if (h < m.heads) {
                const int64_t kept = ((h / fold * s.rows + r) * fold + h % fold) * size;
                for (int64_t i = 0; i < size; i += WIDTH) T::put(queries + (kept + i) / T::EACH, load<Floats>(x + i));
            } else {
                Lane *keys = plane(block, l, 0, h - m.heads);
                for (int64_t i = 0; i < size; i++) T::put(keys, (i / T::EACH * BLOCK + place) * T::EACH + i % T::EACH, x[i]);
            }
        }
        for (int64_t h = 0; h < m.kv_heads; h++) {
            const float *x = row + (m.heads + m.kv_heads + h) * size;
            Lane *values = plane(block, l, 1, h);
            for (int64_t i = 0; i < size; i++) T::put(values, (place / T::EACH * size + i) * T::EACH + place % T::EACH, x[i]);
        }
    }

    // Rows that are looked at together are of one sequence and of one block: they see the same blocks of keys.
    void attend(const Layer &w, int64_t l, int mine, int threads) {
        int64_t number = 0;
        for (int64_t i = 0; i < s.spans; i++) {
            const Span &span = s.span[i];
            for (int64_t at = 0, next; at < span.count; at = next) {
                next = std::min(span.count, at + BLOCK - (span.start + at) % BLOCK);
                for (int64_t h = 0; h < m.kv_heads; h++, number++) {
                    if (number % threads != mine) continue;
                    for (int64_t q = at * fold; q < next * fold; q += ROWS)
                        look(w, l, span, h, q, static_cast<int>(std::min<int64_t>(ROWS, next * fold - q)));
                }
            }
        }
    }

    // What `count` queries of a span see of its keys and values, the first of which is number `first`, in head `h`.
    void look(const Layer &w, int64_t l, const Span &span, int64_t h, int64_t first, int count) {
        const int64_t size = m.size, chunks = size / WIDTH, lanes = size / T::EACH;
        const Lane *q = queries + ((h * s.rows + span.row) * fold + first) * lanes;
        Floats seen[ROWS][LONGEST / WIDTH] = {};
        float peak[ROWS], sum[ROWS] = {};
        int32_t position[ROWS];
        for (int r = 0; r < count; r++) {
            peak[r] = NOTHING;
            position[r] = static_cast<int32_t>(span.start + (first + r) / fold);
        }
        const int64_t oldest = w.window ? std::max<int64_t>(0, position[0] - w.window + 1) : 0;
        for (int64_t b = oldest / BLOCK; b <= position[0] / BLOCK; b++) {
            const int32_t block = s.blocks[span.blocks + b];
            Floats scores[ROWS][BLOCK / WIDTH] = {};
            alignas(64) Lane weights[ROWS][BLOCK];
            tiles<T, BLOCK / WIDTH>(count, q, lanes, plane(block, l, 0, h), BLOCK, static_cast<int>(lanes), scores);
            for (int r = 0; r < count; r++) {
                const float by = weigh(scores[r], weights[r], b * BLOCK, position[r], w.window, peak[r], sum[r]);
                for (int64_t c = 0; c < chunks; c++) seen[r][c] *= by;
            }
            for (int64_t c = 0; c < chunks; c++) {
                Floats part[ROWS][1];
                for (int r = 0; r < count; r++) part[r][0] = seen[r][c];
                tiles<T, 1>(count, weights[0], BLOCK, plane(block, l, 1, h) + c * WIDTH, size, BLOCK / T::EACH, part);
                for (int r = 0; r < count; r++) seen[r][c] = part[r][0];
            }
        }
        for (int r = 0; r < count; r++) {
            const int64_t row = span.row + (first + r) / fold, head = h * fold + (first + r) % fold;
            for (int64_t c = 0; c < chunks; c++)
                T::put(attended + ((row * m.heads + head) * size + c * WIDTH) / T::EACH, seen[r][c] / sum[r]);
        }
    }

    // Turn a row's scores of the keys from number `first` on into weights; returns by what all before is to be scaled.
    float weigh(Floats *scores, Lane *weights, int64_t first, int32_t position, int64_t window, float &peak, float &sum) {
        const Ints places = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        Ints hidden[BLOCK / WIDTH];
        Floats top = all(peak);
        for (int v = 0; v < BLOCK / WIDTH; v++) {
            const Ints key = places + static_cast<int32_t>(first + v * WIDTH);
            hidden[v] = key > position;
            if (window) hidden[v] |= key <= static_cast<int32_t>(position - window);
            scores[v] = hidden[v] ? all(NOTHING) : scores[v] * m.scale;
            top = scores[v] > top ? scores[v] : top;
        }
        const float before = peak;
        peak = greatest(top);
        const float still = peak == NOTHING ? 0.0f : peak;
        Floats weight = {};
        for (int v = 0; v < BLOCK / WIDTH; v++) {
            const Floats one = hidden[v] ? all(0.0f) : exponential(scores[v] - still);
            T::put(weights + v * WIDTH / T::EACH, one);
            weight += one;
        }
        const float by = before == NOTHING ? 0.0f : exponential(all(before - still))[0];
        sum = sum * by + total(weight);
        return by;
    }
};

// What of a step would reach beyond memory; null if nothing does.
const char *fault(const Model &m, const Step &s) {
    for (int64_t r = 0; r < s.rows; r++)
        if (s.ids[r] < 0 || s.ids[r] >= m.vocabulary) return "an id that the model does not have";
    for (int64_t i = 0; i < s.wanted; i++)
        if (s.choose[i] < 0 || s.choose[i] >= s.rows) return "a choice beyond the rows";
    for (int64_t i = 0; i < s.spans; i++) {
        const Span &span = s.span[i];
        const int64_t end = span.start + span.count;
        if (span.row < 0 || span.row + span.count > s.rows) return "a sequence beyond the rows";
        if (span.start < 0 || end > m.positions) return "a position beyond the context";
        if (end > span.held * BLOCK) return "a sequence with too few blocks";
        for (int64_t b = 0; b < span.held; b++)
            if (s.blocks[span.blocks + b] < 0 || s.blocks[span.blocks + b] >= s.stored) return "a block beyond the store";
    }
    return nullptr;
}

template <class T> void run(const Model &m, const Step &s) {
    Forward<T> forward(m, s, Scratch(s.scratch));
#if defined(_OPENMP)
    if (s.threads > 1) {
#pragma omp parallel num_threads(static_cast<int>(s.threads))
        forward.run(omp_get_thread_num(), omp_get_num_threads());
        return;
    }
#endif
    forward.run(0, 1);
}

}  // namespace

extern "C" {

// Bytes of scratch memory that `step` needs; `each` is how many numbers a lane has.
int64_t scratch_bytes(const Model *m, const Step *s, int64_t each) {
    return each == Half::EACH ? Forward<Half>(*m, *s, Scratch(nullptr)).bytes : Forward<Full>(*m, *s, Scratch(nullptr)).bytes;
}

// Compute a step: keys and values go to the store, logits to where they are wanted. What is wrong with it, or null.
const char *step(const Model *m, const Step *s, int64_t each) {
    const char *wrong = fault(*m, *s);
    if (!wrong) each == Half::EACH ? run<Half>(*m, *s) : run<Full>(*m, *s);
    return wrong;
}
}
