#include "kernels/matmul.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "kernels/panel_layout.h"
#include "kernels/panel_pack.h"
#include "tensor/aligned_buffer.h"
#include "tensor/dequantize.h"
#include "tensor/float_convert.h"

namespace pagemill {
namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Bytes from one prepared row to the next: an odd number of cache lines, so that the rows of a tile
// do not compete for the same sets of the L1 cache.
std::size_t activation_stride(ActivationFormat format, std::int64_t cols) {
  std::int64_t bytes = 0;
  switch (format) {
    case ActivationFormat::kF32:
    case ActivationFormat::kBF16:
      bytes = (cols + cols % 2) * 4;
      break;
    case ActivationFormat::kFixed16:
      bytes = fixed_padded_cols(cols) * 2 + fixed_blocks(cols) * 4;
      break;
    case ActivationFormat::kI8:
      bytes = kInt8RowQuants + ceil_div(cols, 16) * 16 * 2;
      break;
    case ActivationFormat::kQ16:
      bytes = ceil_div(cols, kQuantBlock) * static_cast<std::int64_t>(sizeof(Q16Block));
      break;
  }
  return static_cast<std::size_t>((ceil_div(bytes, kLine) | 1) * kLine);
}

MatmulFn matmul_fn(Isa isa, DType dtype) {
  switch (isa) {
    case Isa::kScalar:
      return scalar::matmul_fn(dtype);
    case Isa::kAvx2:
      return avx2::matmul_fn(dtype);
    case Isa::kAvx512:
      return avx512::matmul_fn(dtype);
    case Isa::kAvx512Bf16:
      return avx512bf16::matmul_fn(dtype);
  }
  return nullptr;
}

// What the panels of a matrix of `dtype` hold.
DType panel_dtype(Isa isa, DType dtype) {
  return dtype == DType::kBF16 && isa == Isa::kAvx512 ? DType::kFixed16 : dtype;
}

ActivationFormat activation_format_of(Isa isa, DType dtype) {
  if (dtype == DType::kBF16) return ActivationFormat::kBF16;
  if (dtype == DType::kFixed16) return ActivationFormat::kFixed16;
  if (dtype == DType::kI8) return ActivationFormat::kI8;
  const bool integer = is_quantized(dtype) && isa != Isa::kScalar;
  return integer ? ActivationFormat::kQ16 : ActivationFormat::kF32;
}

}  // namespace

struct ActivationBuffer::Impl {
  std::int64_t max_rows;
  std::int64_t max_cols;
  AlignedBuffer bytes;
};

ActivationBuffer::ActivationBuffer(std::int64_t max_rows, std::int64_t max_cols) {
  PM_CHECK(max_rows >= 1 && max_cols >= 1, "{} rows of {}", max_rows, max_cols);
  const std::size_t stride = std::max({activation_stride(ActivationFormat::kF32, max_cols),
                                       activation_stride(ActivationFormat::kFixed16, max_cols),
                                       activation_stride(ActivationFormat::kI8, max_cols),
                                       activation_stride(ActivationFormat::kQ16, max_cols)});
  impl_ = std::make_unique<Impl>(
      Impl{max_rows, max_cols, AlignedBuffer(static_cast<std::size_t>(max_rows) * stride)});
}
ActivationBuffer::~ActivationBuffer() = default;
ActivationBuffer::ActivationBuffer(ActivationBuffer&&) noexcept = default;
ActivationBuffer& ActivationBuffer::operator=(ActivationBuffer&&) noexcept = default;

struct PackedMatrix::Impl {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  DType dtype = DType::kF32;
  DType panel_dtype = DType::kF32;  // what `panels` holds: `dtype`, or what stands for it
  ActivationFormat activation = ActivationFormat::kF32;
  MatmulFn run = nullptr;
  std::size_t panel_bytes = 0;
  AlignedBuffer panels;

  std::int64_t num_panels() const { return ceil_div(rows, kPanelCols); }
};

PackedMatrix::PackedMatrix() : impl_(std::make_unique<Impl>()) {}
PackedMatrix::PackedMatrix(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PackedMatrix::~PackedMatrix() = default;
PackedMatrix::PackedMatrix(PackedMatrix&&) noexcept = default;
PackedMatrix& PackedMatrix::operator=(PackedMatrix&&) noexcept = default;
std::int64_t PackedMatrix::rows() const { return impl_->rows; }
std::int64_t PackedMatrix::cols() const { return impl_->cols; }
DType PackedMatrix::dtype() const { return impl_->dtype; }
ActivationFormat PackedMatrix::activation_format() const { return impl_->activation; }
std::size_t PackedMatrix::bytes() const { return impl_->panels.size(); }

// ---- packing ----

namespace {

// What pack_matrix stores a weight of type `source` as when asked for `compute`; an error where it
// cannot.
Result<DType> stored_dtype(DType source, DType compute) {
  if (compute == DType::kF32 || compute == DType::kBF16) return compute;
  if (compute == source && is_panel_dtype(source)) return source;
  return unsupported(
      fmt::format("a matrix of {} cannot be stored as {}: ask for F32, BF16 or its own",
                  dtype_info(source).name,
                  dtype_info(compute).name));
}

Status check_int8(const TensorView& weight, std::span<const float> row_scales) {
  if (static_cast<std::int64_t>(row_scales.size()) != weight.shape[0]) {
    return unsupported(fmt::format("a matrix of I8 needs a scale for each row: {} for {} rows",
                                   row_scales.size(),
                                   weight.shape[0]));
  }
  if (weight.shape[1] > kInt8MaxCols) {
    return unsupported(
        fmt::format("an I8 matrix of shape [{}, {}]: at most {} cols, lest sums pass 2^31",
                    weight.shape[0],
                    weight.shape[1],
                    kInt8MaxCols));
  }
  return ok_status();
}

Status check_shape(const TensorView& weight, RowOrder order) {
  if (weight.shape.size() != 2 || weight.shape[0] < 1 || weight.shape[1] < 1) {
    return invalid_argument(
        fmt::format("a weight matrix must be [rows, cols], both at least 1, not [{}]",
                    fmt::join(weight.shape, ", ")));
  }
  const DTypeInfo& info = dtype_info(weight.dtype);
  if (weight.shape[1] % info.block_elements != 0) {
    return invalid_argument(
        fmt::format("a {} matrix of shape [{}, {}]: cols must be a multiple of {}",
                    info.name,
                    weight.shape[0],
                    weight.shape[1],
                    info.block_elements));
  }
  if (order.rotary_heads < 0 ||
      (order.rotary_heads > 0 && weight.shape[0] % (2 * order.rotary_heads) != 0)) {
    return invalid_argument(fmt::format(
        "{} rows are not {} rotary heads of an even size", weight.shape[0], order.rotary_heads));
  }
  return ok_status();
}

// Converts weight rows to the type that the panels hold, a panel at a time. A row of I8 is
// multiplied by its scale.
class RowConverter {
 public:
  RowConverter(DType from, DType to, std::int64_t cols) : from_(from), to_(to), cols_(cols) {
    if (!needed()) return;
    row_.resize(static_cast<std::size_t>(cols));
    const std::int64_t block = dtype_info(to).block_elements;
    row_bytes_ = dtype_bytes(to, ceil_div(cols, block) * block);
    converted_.resize(row_bytes_ * kPanelCols);
  }
  bool needed() const { return from_ != to_; }

  const std::byte* convert(const std::byte* src, float scale, std::int64_t column) {
    std::byte* const out = converted_.data() + static_cast<std::size_t>(column) * row_bytes_;
    dequantize_row(from_, src, cols_, row_.data());
    if (from_ == DType::kI8) {
      for (float& value : row_) value *= scale;
    }
    switch (to_) {
      case DType::kFixed16:
        avx512::quantize_fixed16_weights(row_.data(), cols_, out);
        break;
      case DType::kBF16:
        for (std::int64_t k = 0; k < cols_; ++k) {
          reinterpret_cast<std::uint16_t*>(out)[k] =
              float_to_bf16(row_[static_cast<std::size_t>(k)]);
        }
        break;
      default:
        std::memcpy(out, row_.data(), row_bytes_);
    }
    return out;
  }

 private:
  DType from_;
  DType to_;
  std::int64_t cols_;
  std::size_t row_bytes_ = 0;
  std::vector<float> row_;
  std::vector<std::byte> converted_;
};

void pack_panels(const TensorView& weight,
                 std::span<const float> row_scales,
                 PackedMatrix::Impl& matrix,
                 RowOrder order,
                 int begin,
                 int end) {
  const std::size_t row_bytes = dtype_bytes(weight.dtype, matrix.cols);
  RowConverter converter(weight.dtype, matrix.panel_dtype, matrix.cols);
  for (int panel = begin; panel < end; ++panel) {
    std::array<const std::byte*, kPanelCols> rows{};
    std::array<float, kPanelCols> scales{};
    for (std::int64_t c = 0; c < kPanelCols; ++c) {
      const std::int64_t row = panel * kPanelCols + c;
      if (row >= matrix.rows) break;
      const auto source = static_cast<std::size_t>(order.source_row(row, matrix.rows));
      rows[c] = weight.data + source * row_bytes;
      if (!row_scales.empty()) scales[c] = row_scales[source];
      if (converter.needed()) rows[c] = converter.convert(rows[c], scales[c], c);
    }
    std::byte* const out =
        matrix.panels.data() + static_cast<std::size_t>(panel) * matrix.panel_bytes;
    if (matrix.panel_dtype == DType::kI8) {
      pack_int8_panel(rows, scales, matrix.cols, out);
    } else {
      pack_panel(matrix.panel_dtype, rows, matrix.cols, out);
    }
  }
}

}  // namespace

Result<PackedMatrix> pack_matrix(Isa isa,
                                 const TensorView& weight,
                                 DType compute,
                                 RowOrder order,
                                 ThreadPool& pool,
                                 std::span<const float> row_scales) {
  PM_TRY(check_shape(weight, order));
  if (weight.dtype == DType::kI8) PM_TRY(check_int8(weight, row_scales));
  auto matrix = std::make_unique<PackedMatrix::Impl>();
  PM_ASSIGN(matrix->dtype, stored_dtype(weight.dtype, compute));
  matrix->rows = weight.shape[0];
  matrix->cols = weight.shape[1];
  matrix->panel_dtype = panel_dtype(isa, matrix->dtype);
  matrix->activation = activation_format_of(isa, matrix->panel_dtype);
  matrix->run = matmul_fn(isa, matrix->panel_dtype);
  PM_CHECK(matrix->run != nullptr && isa_supported(isa), "{}", to_string(isa));
  matrix->panel_bytes = panel_bytes(matrix->panel_dtype, matrix->cols);
  const std::int64_t panels = matrix->num_panels();
  PM_ASSIGN(matrix->panels,
            AlignedBuffer::allocate(static_cast<std::size_t>(panels) * matrix->panel_bytes));

  // Tasks of about 256 KB: neighbours in memory, enough of them to balance.
  const std::int64_t per_task = std::clamp<std::int64_t>(
      (256 << 10) / static_cast<std::int64_t>(matrix->panel_bytes), 1, panels);
  pool.parallel_for(static_cast<int>(ceil_div(panels, per_task)), [&](int task) {
    const std::int64_t begin = task * per_task;
    pack_panels(weight,
                row_scales,
                *matrix,
                order,
                static_cast<int>(begin),
                static_cast<int>(std::min(begin + per_task, panels)));
  });
  return PackedMatrix(std::move(matrix));
}

void unpack_row(const PackedMatrix& weight, std::int64_t row, float* out) {
  const PackedMatrix::Impl& matrix = weight.impl();
  PM_CHECK(row >= 0 && row < matrix.rows, "row {} of {}", row, matrix.rows);
  const std::byte* const panel =
      matrix.panels.data() + static_cast<std::size_t>(row / kPanelCols) * matrix.panel_bytes;
  unpack_column(matrix.panel_dtype, panel, row % kPanelCols, matrix.cols, out);
}

// ---- activations ----

void prepare_row(Isa isa,
                 ActivationFormat format,
                 const float* x,
                 std::int64_t cols,
                 ActivationBuffer& buffer,
                 std::int64_t row) {
  ActivationBuffer::Impl& impl = buffer.impl();
  PM_CHECK(row >= 0 && row < impl.max_rows && cols >= 1 && cols <= impl.max_cols,
           "row {} of {}, {} cols of {}",
           row,
           impl.max_rows,
           cols,
           impl.max_cols);
  std::byte* const out =
      impl.bytes.data() + static_cast<std::size_t>(row) * activation_stride(format, cols);
  switch (format) {
    case ActivationFormat::kF32:
      std::copy_n(x, cols, reinterpret_cast<float*>(out));
      if (cols % 2 != 0) reinterpret_cast<float*>(out)[cols] = 0;
      return;
    case ActivationFormat::kBF16:
      if (isa == Isa::kAvx512Bf16) return avx512::prepare_bf16_pairs(x, cols, out);
      if (isa == Isa::kAvx2) return avx2::prepare_bf16(x, cols, out);
      return scalar::prepare_bf16(x, cols, out);
    case ActivationFormat::kFixed16:
      return avx512::prepare_fixed16(x, cols, out);
    case ActivationFormat::kI8:
      if (isa >= Isa::kAvx512) return avx512::prepare_int8(x, cols, out);
      if (isa == Isa::kAvx2) return avx2::prepare_int8(x, cols, out);
      return scalar::prepare_int8(x, cols, out);
    case ActivationFormat::kQ16:
      PM_CHECK(cols % kQuantBlock == 0, "{} cols", cols);
      if (isa >= Isa::kAvx512) return avx512::prepare_q16(x, cols, out);
      if (isa == Isa::kAvx2) return avx2::prepare_q16(x, cols, out);
      return scalar::prepare_q16(x, cols, out);
  }
}

// ---- products ----

namespace {

// How one target is cut into tasks: `row_chunks` runs of rows by `panel_chunks` runs of panels.
struct Cut {
  std::int64_t rows_per_chunk;
  std::int64_t panels_per_chunk;
  std::int64_t row_chunks;
  std::int64_t panel_chunks;
  std::int64_t tasks() const { return row_chunks * panel_chunks; }
};

// A chunk of panels stays in half of a 2 MB L2 while the rows pass over it; a chunk of rows is long
// enough to make reading the panels once more cheap.
constexpr std::int64_t kMaxChunkBytes = 512 << 10;
constexpr std::int64_t kMaxChunkRows = 240;  // whole tiles of 12
constexpr std::int64_t kTasksPerThread = 3;  // to even out cores of uneven speed
// A task below this many multiply-adds is not worth handing to another thread.
constexpr std::int64_t kMinTaskWork = 64 << 10;
constexpr std::int64_t kStreams = 4;  // panels that a kernel streams side by side

Cut cut_target(const PackedMatrix::Impl& matrix,
               std::int64_t num_rows,
               std::int64_t panels_wanted) {
  Cut cut;
  cut.row_chunks = ceil_div(num_rows, kMaxChunkRows);
  cut.rows_per_chunk = ceil_div(num_rows, cut.row_chunks);
  if (cut.row_chunks > 1) cut.rows_per_chunk = ceil_div(cut.rows_per_chunk, 12) * 12;
  cut.row_chunks = ceil_div(num_rows, cut.rows_per_chunk);

  const std::int64_t in_cache = kMaxChunkBytes / static_cast<std::int64_t>(matrix.panel_bytes);
  const std::int64_t worthwhile = kMinTaskWork / (matrix.cols * kPanelCols * cut.rows_per_chunk);
  std::int64_t panels = std::max(std::min(panels_wanted * cut.row_chunks, in_cache), worthwhile);
  panels = std::max(panels / kStreams * kStreams, kStreams);
  cut.panels_per_chunk = std::min(panels, matrix.num_panels());
  cut.panel_chunks = ceil_div(matrix.num_panels(), cut.panels_per_chunk);
  return cut;
}

void run_task(const MatmulTarget& target,
              const Cut& cut,
              const ActivationBuffer::Impl& x,
              std::int64_t num_rows,
              std::int64_t task) {
  const PackedMatrix::Impl& matrix = target.weight->impl();
  const std::size_t stride = activation_stride(matrix.activation, matrix.cols);
  const std::int64_t first_row = task % cut.row_chunks * cut.rows_per_chunk;
  const std::int64_t first_panel = task / cut.row_chunks * cut.panels_per_chunk;
  matrix.run({
      .weights = matrix.panels.data(),
      .panel_bytes = matrix.panel_bytes,
      .panel_begin = first_panel,
      .panel_end = std::min(first_panel + cut.panels_per_chunk, matrix.num_panels()),
      .rows = matrix.rows,
      .cols = matrix.cols,
      .x = x.bytes.data() + static_cast<std::size_t>(first_row) * stride,
      .x_stride = stride,
      .num_rows = std::min(cut.rows_per_chunk, num_rows - first_row),
      .y = target.y + first_row * target.ldy,
      .ldy = target.ldy,
      .bias = target.bias,
      .accumulate = target.accumulate,
  });
}

}  // namespace

void matmul(ThreadPool& pool,
            const ActivationBuffer& x,
            std::int64_t num_rows,
            std::span<const MatmulTarget> targets) {
  constexpr std::size_t kMaxTargets = 16;
  const ActivationBuffer::Impl& activations = x.impl();
  PM_CHECK(targets.size() <= kMaxTargets, "{} targets", targets.size());
  PM_CHECK(num_rows <= activations.max_rows, "{} rows of {}", num_rows, activations.max_rows);
  if (num_rows <= 0 || targets.empty()) return;

  std::int64_t panels = 0;
  for (const MatmulTarget& target : targets) {
    const PackedMatrix::Impl& matrix = target.weight->impl();
    const PackedMatrix::Impl& first = targets.front().weight->impl();
    PM_CHECK(
        matrix.run != nullptr && matrix.activation == first.activation && matrix.cols == first.cols,
        "targets that want different activations");
    PM_CHECK(target.ldy >= matrix.rows, "ldy {} of {}", target.ldy, matrix.rows);
    panels += matrix.num_panels();
  }
  const std::int64_t panels_wanted = ceil_div(panels, pool.size() * kTasksPerThread);

  std::array<Cut, kMaxTargets> cuts;
  std::array<std::int64_t, kMaxTargets + 1> first_task;
  first_task[0] = 0;
  for (std::size_t t = 0; t < targets.size(); ++t) {
    cuts[t] = cut_target(targets[t].weight->impl(), num_rows, panels_wanted);
    first_task[t + 1] = first_task[t] + cuts[t].tasks();
  }
  pool.parallel_for(static_cast<int>(first_task[targets.size()]), [&](int task) {
    std::size_t t = 0;
    while (task >= first_task[t + 1]) ++t;
    run_task(targets[t], cuts[t], activations, num_rows, task - first_task[t]);
  });
}

}  // namespace pagemill
