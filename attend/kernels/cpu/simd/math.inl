// Elementary functions on vectors. Included by the units' other *.inl, inside their namespaces.

/// 2^(x + n) for whole numbers n, which are not added to x: the sum would round. NaN stays NaN, x = -inf gives 0,
/// results below the smallest normal number may be 0. Error below 2 units in the last place for x and n within 2^16:
/// the tables of exp_table.h where vectors can look up, else a minimax polynomial of degree 6 (1.9e-9) on [-1/2, 1/2].
template <typename S>
Vec exp2_of(Vec x, Vec n) {
    const Vec clamped = S::max(S::set1(kExpTable.lowest), x);  // the second operand, NaN, is kept
    if constexpr (S::kWidth == 16) {
        const ExpTable& table = kExpTable;
        const Vec shifted = S::add(clamped, S::set1(table.magic));
        const Vec sixteenths = S::sub(shifted, S::set1(table.magic));
        const Vec f = S::sub(clamped, sixteenths);
        Vec p = S::lookup(table.cubic[3].data(), shifted);
        p = S::fma(p, f, S::lookup(table.cubic[2].data(), shifted));
        p = S::fma(p, f, S::lookup(table.cubic[1].data(), shifted));
        p = S::fma(p, f, S::lookup(table.cubic[0].data(), shifted));
        return S::scale_by_power(p, S::add(sixteenths, n));
    } else if constexpr (S::kWidth == 8) {
        const ExpTable& table = kExpTable;
        const Vec shifted = S::add(S::min(S::set1(-table.lowest), x), S::set1(table.magic_of_eighth));
        const Vec f = S::sub(x, S::sub(shifted, S::set1(table.magic_of_eighth)));
        Vec p = S::set1(table.cubic_of_eighth[3]);
        for (std::size_t i = 3; i > 0; --i) p = S::fma(p, f, S::set1(table.cubic_of_eighth[i - 1]));
        const Vec eighths = S::min(S::set1(table.magic_of_eighth + 128.0F), S::add(shifted, n));
        return S::zero_below(S::add(x, n), -126.0F, S::mul(p, S::power_of_eighths(table.eighths.data(), eighths)));
    } else {
        const Vec whole = S::round(clamped);
        const Vec f = S::sub(clamped, whole);
        Vec p = S::set1(0.000153458122952F);
        for (const float c : {0.0013399931227F, 0.00961848895585F, 0.0555032877694F, 0.240226468906F, 0.693147205737F,
                              1.00000000055F}) {
            p = S::fma(p, f, S::set1(c));
        }
        return S::scale_by_power(p, S::add(whole, n));
    }
}

inline Vec exp2(Vec x, Vec n) {
    return exp2_of<Simd>(x, n);
}
inline Vec exp2(Vec x) {
    return exp2(x, Simd::zero());
}

/// e^x. An object, so that loops keep its constants in registers. Here log2(e) x is rounded, |x| 2^-24 of the result.
template <typename S, int kWidthOf = S::kWidth>
class ExpOf {
public:
    Vec operator()(Vec x) const { return exp2_of<S>(S::mul(x, log2e_), S::zero()); }

private:
    Vec log2e_ = S::set1(std::numbers::log2e_v<float>);
};

/// One cubic times the table's power: a third less than exp2_of's lookups, and one multiplication more. log2(e) x is
/// rounded together with what it is reduced by: the error is that of exp2_of.
template <typename S>
class ExpOf<S, 16> {
public:
    Vec operator()(Vec x) const {
        const Vec clamped = S::min(highest_, S::max(lowest_, x));  // the second operands, NaN, are kept
        const Vec shifted = S::fma(clamped, log2e_, magic_);
        const Vec sixteenths = S::sub(shifted, magic_);
        const Vec f = S::fms(clamped, log2e_, sixteenths);
        const Vec p = S::fma(S::fma(cubic_, f, square_), f, line_);
        const Vec power = S::lookup_in(powers_, shifted);
        return S::scale_by_power(S::fma(p, S::mul(power, f), power), sixteenths);
    }

private:
    Vec log2e_ = S::set1(std::numbers::log2e_v<float>);
    Vec lowest_ = S::set1(-700.0F);
    Vec highest_ = S::set1(90.0F);
    Vec magic_ = S::set1(kExpTable.magic);
    Vec powers_ = S::load(kExpTable.cubic[0].data());
    Vec line_ = S::set1(kExpTable.cubic[1][0]);
    Vec square_ = S::set1(kExpTable.cubic[2][0]);
    Vec cubic_ = S::set1(kExpTable.cubic[3][0]);
};

using Exp = ExpOf<Simd>;

/// tanh(x): x P(x^2) below 0.625 (minimax, relative error 4e-9), else 1 - 2 / (e^(2 |x|) + 1) with the sign of x.
inline Vec tanh(Vec x) {
    const Vec magnitude = Simd::min(Simd::set1(40.0F), Simd::abs(x));  // 1 from 10 on; NaN, the second, is kept
    const Vec square = Simd::mul(x, x);
    Vec p = Simd::set1(-0.00565998899977F);
    for (const float c : {0.0205909883491F, -0.0537210680411F, 0.13331127537F, -0.33333260527F, 0.999999996075F}) {
        p = Simd::fma(p, square, Simd::set1(c));
    }
    const Vec one = Simd::set1(1.0F);
    const Vec power = exp2(Simd::mul(magnitude, Simd::set1(2.885390082F)));
    const Vec large = Simd::sub(one, Simd::div(Simd::set1(2.0F), Simd::add(power, one)));
    const Vec signed_large = Simd::select(Simd::less(x, Simd::zero()), Simd::sub(Simd::zero(), large), large);
    return Simd::select(Simd::less(magnitude, Simd::set1(0.625F)), Simd::mul(x, p), signed_large);
}

/// Minimax, relative error 7e-10 for t below (sqrt(2) - 1) / (sqrt(2) + 1).
constexpr float kLog2[4] = {2.88539007979F, 0.961798847642F, 0.576714383962F, 0.431735879191F};

/// log2(x) in two parts.
struct Log2 {
    Vec exponent = {};  ///< e, a whole number
    Vec fraction = {};  ///< log2(m), at most 1/2 in magnitude
};

/// Of a normal positive x = m 2^e, with m in [1/sqrt(2), sqrt(2)) and log2(m) = t P(t^2), an odd function of
/// t = (m - 1) / (m + 1). The fraction's error is below 1.5 units in the last place of 1/2.
inline Log2 log2_parts(Vec x) {
    const Vec one = Simd::set1(1.0F);
    const Vec m = Simd::mantissa(x);
    const std::uint32_t upper = Simd::less(Simd::set1(1.414213562F), m);
    const Vec mantissa = Simd::select(upper, Simd::mul(m, Simd::set1(0.5F)), m);
    const Vec exponent = Simd::add(Simd::exponent(x), Simd::select(upper, one, Simd::zero()));
    const Vec t = Simd::div(Simd::sub(mantissa, one), Simd::add(mantissa, one));
    const Vec square = Simd::mul(t, t);
    Vec p = Simd::set1(kLog2[3]);
    for (int i = 2; i >= 0; --i) p = Simd::fma(p, square, Simd::set1(kLog2[i]));
    return {exponent, Simd::mul(p, t)};
}

/// (shift unit + log2(x)) ln 2, rounded once where the unit is 1: the error is half a unit in the last place and a few
/// 1e-8. Another unit is rounded with ln 2, 1e-7 of shift unit. NaN stays NaN, x = infinity gives it, and a sum beyond
/// all numbers is infinite.
inline Vec shifted_log(Vec shift, float unit, Vec x) {
    constexpr float kHigh = 0.693359375F;  // of ten bits: exact times an exponent
    constexpr float kLow = -2.12194440055e-4F;
    const Log2 parts = log2_parts(x);
    const Vec factor = Simd::set1(unit * std::numbers::ln2_v<float>);
    const Vec a = Simd::mul(shift, factor);
    const Vec b = Simd::mul(parts.exponent, Simd::set1(kHigh));
    const Vec sum = Simd::add(a, b);
    // What the product and the sum (Knuth's, of any order of magnitudes) were rounded by.
    const Vec of_b = Simd::sub(sum, a);
    const Vec of_sum = Simd::add(Simd::sub(a, Simd::sub(sum, of_b)), Simd::sub(b, of_b));
    Vec rest = Simd::add(of_sum, Simd::fma(shift, factor, Simd::sub(Simd::zero(), a)));
    rest = Simd::fma(parts.exponent, Simd::set1(kLow), rest);
    rest = Simd::fma(parts.fraction, Simd::set1(std::numbers::ln2_v<float>), rest);
    const Vec result = Simd::select(Simd::finite(sum), Simd::add(sum, rest), sum);
    return Simd::select(Simd::finite(x), result, x);
}

/// erf(x): x P(x^2) below 0.875, else 1 - 2^-Q(|x|), which is 1 from 4.1 on; minimax, error 3 units in the last place.
inline Vec erf(Vec x) {
    const Vec magnitude = Simd::min(Simd::set1(4.1F), Simd::abs(x));  // NaN, the second, is kept
    const Vec square = Simd::mul(x, x);
    Vec p = Simd::set1(-0.00062032527F);
    for (const float c : {0.0050321808F, -0.026791463F, 0.11282455F, -0.37612551F, 1.12837911F}) {
        p = Simd::fma(p, square, Simd::set1(c));
    }
    Vec q = Simd::set1(-0.00028997796F);
    for (const float c : {0.0044612498F, -0.032345593F, 0.15051287F, 0.91861755F, 1.62726796F, 0.0001926953F}) {
        q = Simd::fma(q, magnitude, Simd::set1(c));
    }
    const Vec large = Simd::sub(Simd::set1(1.0F), exp2(Simd::sub(Simd::zero(), q)));
    const Vec signed_large = Simd::select(Simd::less(x, Simd::zero()), Simd::sub(Simd::zero(), large), large);
    return Simd::select(Simd::less(magnitude, Simd::set1(0.875F)), Simd::mul(x, p), signed_large);
}
