// The matrix products under every Transformer: weights packed once, in float32, bfloat16 or int8, kept in a file, and
// multiplied with any number of rows, each of which has the same bits whatever is beside it.
#include <attend/attend.h>

#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

int main() {
    using namespace attend;
    const Tensor x = randn({7, 512}, {.seed = 1});
    const Tensor weight = randn({1000, 512}, {.seed = 2});  // [out, in], as torch.nn.Linear has it
    const Tensor bias = randn({1000}, {.seed = 3});
    DenseOptions options;
    options.bias = bias;
    options.activation = Activation::gelu;

    const Tensor exact = matmul(x, PackedMatrix(weight), options);
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::int8}) {
        const PackedMatrix packed(weight, {.dtype = dtype});
        const Tensor y = matmul(x, packed, options);
        double largest = 0.0;
        for (std::int64_t i = 0; i < y.numel(); ++i) {
            largest = std::fmax(largest, std::fabs(static_cast<double>(y.data<float>()[i] - exact.data<float>()[i])));
        }
        const Tensor alone = matmul(x.view().slice(0, 3, 4), packed, options);
        std::printf("%s: %zu KB, at most %.3f from float32; row 3 alone: %s\n", std::string(name_of(dtype)).c_str(),
                    packed.image().size() / 1024, largest,
                    alone.at<float>({0, 999}) == y.at<float>({3, 999}) ? "the same bits" : "other bits");
    }

    // Packed bytes are the same on every processor: they can be written, and mapped the next time.
    const PackedMatrix packed(weight, {.dtype = DType::int8});
    const std::string path = "weight.packed";
    write_file(path, {reinterpret_cast<const char*>(packed.image().data()), packed.image().size()});
    const auto file = std::make_shared<MappedFile>(MappedFile::open(path));
    const PackedMatrix mapped = PackedMatrix::from_image(file->bytes(), file);

    // A vocabulary's shortlist: some columns of y, without packing again.
    const std::vector<std::int64_t> shortlist = {5, 17, 900};
    const Tensor some = matmul(x, mapped.select(shortlist));
    std::printf("columns 5, 17 and 900 of row 0: %.3f %.3f %.3f\n", some.item({0, 0}), some.item({0, 1}),
                some.item({0, 2}));
    std::remove(path.c_str());
}
