// The residual stream is f32 whatever the weights' dtype.
#include "models/decoder.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "base/check.h"
#include "base/tracer.h"
#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "models/decoder_layer.h"
#include "tensor/aligned_buffer.h"
#include "tensor/dequantize.h"
#include "tensor/float_convert.h"

namespace pagemill {
namespace {

float* floats(AlignedBuffer& buffer) { return reinterpret_cast<float*>(buffer.data()); }

class Decoder final : public Model {
 public:
  Decoder(DecoderSpec decoder, const ModelOptions& options, ThreadPool& pool)
      : decoder_(std::move(decoder)),
        options_(options),
        pool_(pool),
        elementwise_(elementwise_kernels(options.isa)),
        hidden_(decoder_.hidden_size),
        qkv_stride_(decoder_.q_size() + 2 * decoder_.kv_size()) {}

  Status load(const LoadContext& context);
  const ModelSpec& spec() const override { return spec_; }
  void forward(const ForwardBatch& batch, KvStorage& kv, float* hidden) override;
  void logits(const float* hidden, std::int64_t num_rows, float* logits) override;

 private:
  Status load_vocabulary(const LoadContext& context);
  void assign_kv_groups();
  void allocate_scratch();
  void fill_spec(const LoadContext& context);

  void embed(const ForwardBatch& batch);
  void embed_token(TokenId token, float* x) const;
  void write_keys_values(std::int32_t index, const ForwardBatch& batch, KvStorage& kv);
  void shape_keys_queries(const DecoderLayer& layer,
                          std::int32_t index,
                          float* qkv,
                          std::int64_t row);
  void attend(std::int32_t index, std::span<const AttentionSequence> sequences, KvStorage& kv);
  void keep_rows(std::span<const std::int32_t> rows);
  void add_attention(const DecoderLayer& layer, std::span<const std::int32_t> rows);
  void add_mlp(const DecoderLayer& layer, std::int64_t num_rows);
  void add_experts(const DecoderLayer& layer, std::int64_t num_rows);
  void add_branch(const char* op,
                  const LinearGroup& last,
                  const std::optional<Norm>& norm,
                  std::int64_t num_rows);
  void activate_and_prepare(const DecoderLayer& layer, std::int64_t num_rows);
  void product(const char* op,
               const LinearGroup& group,
               std::int64_t num_rows,
               std::span<const LinearGroup::Output> outputs,
               bool accumulate = false);
  void norm_and_prepare(const std::optional<Norm>& norm,
                        const LinearGroup& next,
                        const float* x,
                        std::int64_t num_rows);
  // What is in branch_, normed.
  void add_to_residual(const std::optional<Norm>& norm, std::int64_t num_rows);
  bool rotates() const { return !decoder_.ropes.empty(); }

  DecoderSpec decoder_;
  ModelOptions options_;
  ThreadPool& pool_;
  const ElementwiseKernels& elementwise_;
  std::int64_t hidden_;      // elements of a row of the residual stream
  std::int64_t qkv_stride_;  // of one token's queries, keys and values
  ModelSpec spec_;

  const CheckpointTensor* embedding_ = nullptr;  // null where tied: the packed lm_head serves
  std::vector<float> positions_;                 // [rows, hidden_size], or empty
  std::optional<Norm> embedding_norm_, final_norm_;
  std::vector<DecoderLayer> layers_;
  LinearGroup lm_head_;

  // Scratch for max_tokens rows, allocated once.
  AlignedBuffer residual_;   // [max_tokens, hidden_size]
  AlignedBuffer qkv_;        // [max_tokens, q_size + 2 kv_size]
  AlignedBuffer attention_;  // [max_tokens, q_size]
  AlignedBuffer up_;         // [max_tokens, up.size() * intermediate_size]
  AlignedBuffer normed_;     // [max(max_tokens, max_logits_rows), hidden_size]
  AlignedBuffer branch_;     // [max_tokens, hidden_size], if what branches add is changed first
  std::vector<AlignedBuffer>
      cos_sin_;  // of each rope, [max_tokens, rotary_dim]: cosines, then sines
  std::optional<Activations> activations_;
  std::optional<MoeScratch> moe_scratch_;
  std::vector<std::int32_t> all_rows_;             // 0, 1, .. max_tokens - 1
  std::vector<AttentionSequence> last_sequences_;  // of the rows that need logits
};

Status Decoder::load(const LoadContext& context) {
  for (std::int32_t i = 0; i < decoder_.num_layers; ++i) {
    PM_ASSIGN(DecoderLayer layer, DecoderLayer::load(context, decoder_, i));
    layers_.push_back(std::move(layer));
  }
  PM_TRY(load_vocabulary(context));
  assign_kv_groups();
  allocate_scratch();
  fill_spec(context);
  return ok_status();
}

Status Decoder::load_vocabulary(const LoadContext& context) {
  const LinearSpec head[] = {decoder_.lm_head};
  PM_ASSIGN(lm_head_, LinearGroup::load(context, head, hidden_));
  if (decoder_.lm_head.name != decoder_.embedding) {
    const std::int64_t shape[] = {decoder_.vocab_size, hidden_};
    PM_ASSIGN(embedding_,
              require_tensor(context.checkpoint, decoder_.embedding + ".weight", shape));
    if (embedding_->row_scales) {
      return unsupported(
          fmt::format("{}: {}: a table of embeddings in I8 is supported where lm_head shares it",
                      embedding_->file,
                      embedding_->source_name));
    }
  }
  if (const auto& table = decoder_.positions) {
    PM_ASSIGN(positions_, load_table(context, table->name + ".weight", table->rows, hidden_));
  }
  PM_ASSIGN(embedding_norm_, load_norm(context, decoder_.embedding_norm, "", hidden_));
  PM_ASSIGN(final_norm_, load_norm(context, decoder_.final_norm, "", hidden_));
  return ok_status();
}

// Layers with the same window share a block table.
void Decoder::assign_kv_groups() {
  std::map<std::int32_t, std::int32_t> group_of_window;
  for (std::int32_t i = 0; i < decoder_.num_layers; ++i) {
    const std::int32_t window = decoder_.window[i];
    const auto [it, is_new] =
        group_of_window.try_emplace(window, static_cast<std::int32_t>(spec_.kv_specs.size()));
    if (is_new) {
      spec_.kv_specs.push_back({.kind = window > 0 ? KvKind::kWindowed : KvKind::kFull,
                                .layers = {},
                                .num_kv_heads = decoder_.num_kv_heads,
                                .head_size = decoder_.head_size,
                                .window = window,
                                .bytes_per_token = 0});
    }
    KvSpec& kv = spec_.kv_specs[it->second];
    kv.layers.push_back(i);
    kv.bytes_per_token += 2 * decoder_.kv_size() * dtype_info(DType::kBF16).block_bytes;
    layers_[i].kv_group = it->second;
  }
}

void Decoder::allocate_scratch() {
  const std::int64_t rows = options_.max_tokens;
  const std::int64_t inner = decoder_.intermediate_size;
  const auto allocate = [](std::int64_t elements) {
    return AlignedBuffer(static_cast<std::size_t>(elements) * sizeof(float));
  };
  residual_ = allocate(rows * hidden_);
  qkv_ = allocate(rows * qkv_stride_);
  attention_ = allocate(rows * decoder_.q_size());
  up_ = allocate(rows * std::ssize(decoder_.layer.up) * inner);
  const std::int64_t normed_rows = std::max(rows, std::int64_t{options_.max_logits_rows});
  normed_ = allocate(normed_rows * hidden_);
  const DecoderLayerSpec& layer_spec = decoder_.layer;
  if (layer_spec.attention_post_norm || layer_spec.mlp_post_norm || decoder_.branch_scale != 1 ||
      decoder_.moe) {
    branch_ = allocate(rows * hidden_);
  }
  for (const RotaryEmbedding& rope : decoder_.ropes) {
    cos_sin_.push_back(allocate(rows * rope.rotary_dim()));
  }
  std::int64_t widest = std::max({hidden_, decoder_.q_size(), inner});
  if (const auto& moe = decoder_.moe) {
    moe_scratch_.emplace(*moe, rows, hidden_);
    widest = std::max(widest, moe->expert.intermediate_size);
    if (moe->shared) widest = std::max(widest, moe->shared->intermediate_size);
  }
  activations_.emplace(options_.isa, normed_rows, widest);
  const auto reserve = [&](const LinearGroup& group) {
    for (ActivationFormat format : group.formats()) activations_->reserve(format);
  };
  for (const DecoderLayer& layer : layers_) {
    for (const LinearGroup* group : {&layer.qkv, &layer.output, &layer.up, &layer.down}) {
      reserve(*group);
    }
    if (layer.experts) layer.experts->reserve(*activations_);
  }
  reserve(lm_head_);
  all_rows_.resize(rows);
  std::iota(all_rows_.begin(), all_rows_.end(), 0);
  last_sequences_.reserve(rows);
}

void Decoder::fill_spec(const LoadContext& context) {
  spec_.architecture = decoder_.architecture;
  spec_.num_layers = decoder_.num_layers;
  spec_.hidden_size = decoder_.hidden_size;
  spec_.vocab_size = decoder_.vocab_size;
  spec_.max_model_len = decoder_.max_positions;
  spec_.prefix_cacheable = std::none_of(decoder_.ropes.begin(),
                                        decoder_.ropes.end(),
                                        [](const auto& rope) { return rope.depends_on_length(); });
  spec_.dtype = dtype_info(layers_.back().dtype()).name;
  for (const CheckpointTensor& tensor : context.checkpoint.tensors()) {
    spec_.num_parameters += tensor.view.elements();
    if (tensor.row_scales) spec_.num_parameters -= tensor.row_scales->elements();
  }
  spec_.weight_bytes = lm_head_.bytes();
  for (const DecoderLayer& layer : layers_) spec_.weight_bytes += layer.bytes();
}

void Decoder::norm_and_prepare(const std::optional<Norm>& norm,
                               const LinearGroup& next,
                               const float* x,
                               std::int64_t num_rows) {
  const TraceScope scope("norm");
  for_each_row(pool_, num_rows, [&](std::int64_t row) {
    const float* ready = x + row * hidden_;
    if (norm) {
      float* normed = floats(normed_) + row * hidden_;
      norm->apply(elementwise_, ready, normed);
      ready = normed;
    }
    activations_->prepare(next.formats(), ready, hidden_, row);
  });
}

void Decoder::embed_token(TokenId token, float* x) const {
  if (embedding_ == nullptr) return unpack_row(lm_head_.weight(0), token, x);
  const TensorView& view = embedding_->view;
  dequantize_row(view.dtype, view.data + dtype_bytes(view.dtype, token * hidden_), hidden_, x);
  if (options_.compute != DType::kBF16) return;
  for (std::int64_t i = 0; i < hidden_; ++i) x[i] = bf16_to_float(float_to_bf16(x[i]));
}

void Decoder::product(const char* op,
                      const LinearGroup& group,
                      std::int64_t num_rows,
                      std::span<const LinearGroup::Output> outputs,
                      bool accumulate) {
  const TraceScope scope(op);
  group.run(pool_, *activations_, num_rows, outputs, accumulate);
}

void Decoder::embed(const ForwardBatch& batch) {
  const TraceScope scope("embed");
  for_each_row(pool_, static_cast<std::int64_t>(batch.token_ids.size()), [&](std::int64_t row) {
    float* x = floats(residual_) + row * hidden_;
    const std::int32_t position = batch.positions[row];
    embed_token(batch.token_ids[row], x);
    if (decoder_.embedding_scale != 1) {
      elementwise_.scale_softcap(x, decoder_.embedding_scale, 0, hidden_);
    }
    if (const auto& table = decoder_.positions) {
      const float* of_position = positions_.data() + (position + table->offset) * hidden_;
      elementwise_.add_scaled(of_position, 1, hidden_, x);
    }
    if (embedding_norm_) embedding_norm_->apply(elementwise_, x, x);
    for (std::size_t i = 0; i < decoder_.ropes.size(); ++i) {
      const RotaryEmbedding& rope = decoder_.ropes[i];
      float* cos = floats(cos_sin_[i]) + row * rope.rotary_dim();
      rope.cos_sin(position, batch.prompt_lens[row], cos, cos + rope.rotary_dim() / 2);
    }
  });
}

// What happens to one row's queries, keys and values between the product and the cache.
void Decoder::shape_keys_queries(const DecoderLayer& layer,
                                 std::int32_t index,
                                 float* qkv,
                                 std::int64_t row) {
  float* const k = qkv + decoder_.q_size();
  if (const float clip = decoder_.clip_qkv; clip > 0) {
    for (std::int64_t i = 0; i < qkv_stride_; ++i) qkv[i] = std::clamp(qkv[i], -clip, clip);
  }
  if (layer.q_norm) layer.q_norm->apply(elementwise_, qkv, qkv);
  if (layer.k_norm) layer.k_norm->apply(elementwise_, k, k);
  if (!rotates()) return;
  const std::int32_t rope = decoder_.rope_of_layer[index];
  if (rope < 0) return;
  const std::int64_t rotary_dim = decoder_.ropes[rope].rotary_dim();
  const float* cos = floats(cos_sin_[rope]) + row * rotary_dim;
  // Q and K lie side by side: one call rotates the heads of both.
  elementwise_.rope_neox(qkv,
                         decoder_.num_heads + decoder_.num_kv_heads,
                         decoder_.head_size,
                         rotary_dim,
                         cos,
                         cos + rotary_dim / 2);
}

// Of every row: queries into qkv_, keys and values into the cache.
void Decoder::write_keys_values(std::int32_t index, const ForwardBatch& batch, KvStorage& kv) {
  const DecoderLayer& layer = layers_[index];
  const auto num_tokens = static_cast<std::int64_t>(batch.token_ids.size());
  float* q = floats(qkv_);
  float* k = q + decoder_.q_size();
  float* v = k + decoder_.kv_size();
  norm_and_prepare(layer.attention_norm, layer.qkv, floats(residual_), num_tokens);
  const LinearGroup::Output qkv[] = {{q, qkv_stride_}, {k, qkv_stride_}, {v, qkv_stride_}};
  product("qkv", layer.qkv, num_tokens, qkv);
  const TraceScope scope("rope_kv_write");
  if (rotates() || layer.q_norm || decoder_.clip_qkv > 0) {
    for_each_row(pool_, num_tokens, [&](std::int64_t row) {
      shape_keys_queries(layer, index, q + row * qkv_stride_, row);
    });
  }
  write_kv(options_.isa,
           pool_,
           kv.layout(layer.kv_group),
           kv.keys(index),
           kv.values(index),
           k,
           qkv_stride_,
           v,
           qkv_stride_,
           batch.groups[layer.kv_group].slot_mapping);
}

void Decoder::attend(std::int32_t index,
                     std::span<const AttentionSequence> sequences,
                     KvStorage& kv) {
  const TraceScope scope("attention");
  const AttentionParams params{
      .num_heads = decoder_.num_heads,
      .scale = decoder_.attention_scale,
      .window = decoder_.window[index],
      .logit_softcap = decoder_.attention_softcap,
      .alibi_slopes = decoder_.alibi_slopes.empty() ? nullptr : decoder_.alibi_slopes.data()};
  paged_attention(options_.isa,
                  pool_,
                  kv.layout(layers_[index].kv_group),
                  kv.keys(index),
                  kv.values(index),
                  params,
                  floats(qkv_),
                  qkv_stride_,
                  sequences,
                  floats(attention_),
                  decoder_.q_size());
}

// From here on row i of the residual stream is what was that of rows[i].
void Decoder::keep_rows(std::span<const std::int32_t> rows) {
  for (std::size_t i = 0; i < rows.size(); ++i) {  // ascending: no row goes before its turn
    if (rows[i] == static_cast<std::int32_t>(i)) continue;
    std::copy_n(floats(residual_) + rows[i] * hidden_, hidden_, floats(residual_) + i * hidden_);
  }
}

// Adds what the branch's last product makes of the prepared activations to the residual stream.
void Decoder::add_branch(const char* op,
                         const LinearGroup& last,
                         const std::optional<Norm>& norm,
                         std::int64_t num_rows) {
  if (!norm && decoder_.branch_scale == 1) {
    const LinearGroup::Output residual[] = {{floats(residual_), hidden_}};
    return product(op, last, num_rows, residual, /*accumulate=*/true);
  }
  const LinearGroup::Output branch[] = {{floats(branch_), hidden_}};
  product(op, last, num_rows, branch);
  add_to_residual(norm, num_rows);
}

void Decoder::add_to_residual(const std::optional<Norm>& norm, std::int64_t num_rows) {
  for_each_row(pool_, num_rows, [&](std::int64_t row) {
    float* x = floats(branch_) + row * hidden_;
    if (norm) norm->apply(elementwise_, x, x);
    elementwise_.add_scaled(x, decoder_.branch_scale, hidden_, floats(residual_) + row * hidden_);
  });
}

// Of what attend() found for `rows`.
void Decoder::add_attention(const DecoderLayer& layer, std::span<const std::int32_t> rows) {
  const auto num_rows = static_cast<std::int64_t>(rows.size());
  const std::int64_t q_size = decoder_.q_size();
  for_each_row(pool_, num_rows, [&](std::int64_t i) {
    const float* row = floats(attention_) + rows[i] * q_size;
    activations_->prepare(layer.output.formats(), row, q_size, i);
  });
  add_branch("out", layer.output, layer.attention_post_norm, num_rows);
}

void Decoder::add_experts(const DecoderLayer& layer, std::int64_t num_rows) {
  const TraceScope scope("experts");
  float* normed = floats(normed_);
  for_each_row(pool_, num_rows, [&](std::int64_t row) {
    layer.mlp_norm->apply(elementwise_, floats(residual_) + row * hidden_, normed + row * hidden_);
  });
  layer.experts->run(
      pool_, elementwise_, *activations_, *moe_scratch_, normed, num_rows, floats(branch_));
  add_to_residual(layer.mlp_post_norm, num_rows);
}

void Decoder::add_mlp(const DecoderLayer& layer, std::int64_t num_rows) {
  if (layer.experts) return add_experts(layer, num_rows);
  const std::int64_t width = decoder_.intermediate_size;
  const std::int64_t stride = std::ssize(decoder_.layer.up) * width;
  const bool shares_norm = decoder_.parallel && !layer.mlp_norm;
  norm_and_prepare(
      shares_norm ? layer.attention_norm : layer.mlp_norm, layer.up, floats(residual_), num_rows);
  float* first = floats(up_);
  const LinearGroup::Output up[] = {{first, stride}, {first + width, stride}};
  product("gate_up", layer.up, num_rows, std::span(up).first(decoder_.layer.up.size()));
  activate_and_prepare(layer, num_rows);
  add_branch("down", layer.down, layer.mlp_post_norm, num_rows);
}

void Decoder::activate_and_prepare(const DecoderLayer& layer, std::int64_t num_rows) {
  const TraceScope scope("activation");
  const std::int64_t width = decoder_.intermediate_size;
  const std::int64_t stride = std::ssize(decoder_.layer.up) * width;
  const auto activate = activation_kernel(elementwise_, decoder_.activation);
  for_each_row(pool_, num_rows, [&](std::int64_t row) {
    float* x = floats(up_) + row * stride;
    activate(x, decoder_.is_gated() ? x + width : nullptr, width, x);
    activations_->prepare(layer.down.formats(), x, width, row);
  });
}

void Decoder::forward(const ForwardBatch& batch, KvStorage& kv, float* hidden) {
  const auto num_tokens = static_cast<std::int64_t>(batch.token_ids.size());
  PM_CHECK(
      num_tokens <= options_.max_tokens, "{} tokens, room for {}", num_tokens, options_.max_tokens);
  embed(batch);
  for (std::int32_t i = 0; i < decoder_.num_layers; ++i) {
    const DecoderLayer& layer = layers_[i];
    std::span<const AttentionSequence> sequences = batch.groups[layer.kv_group].sequences;
    std::span<const std::int32_t> rows = std::span(all_rows_).first(num_tokens);
    write_keys_values(i, batch, kv);
    if (i + 1 == decoder_.num_layers) {
      // Nothing reads what the last layer makes of the other rows but their keys and values.
      select_queries(sequences, batch.logits_rows, last_sequences_);
      sequences = last_sequences_;
      rows = batch.logits_rows;
    }
    attend(i, sequences, kv);
    keep_rows(rows);
    // In a parallel block the MLP reads what attention has not been added to yet.
    if (decoder_.parallel) add_mlp(layer, std::ssize(rows));
    add_attention(layer, rows);
    if (!decoder_.parallel) add_mlp(layer, std::ssize(rows));
  }
  std::copy_n(floats(residual_), std::ssize(batch.logits_rows) * hidden_, hidden);
}

void Decoder::logits(const float* hidden, std::int64_t num_rows, float* logits) {
  PM_CHECK(num_rows <= options_.max_logits_rows,
           "{} rows, room for {}",
           num_rows,
           options_.max_logits_rows);
  norm_and_prepare(final_norm_, lm_head_, hidden, num_rows);
  const std::int64_t vocab = decoder_.vocab_size;
  const LinearGroup::Output output[] = {{logits, vocab}};
  product("logits", lm_head_, num_rows, output);
  if (decoder_.logits_scale == 1 && decoder_.logits_softcap == 0) return;
  for_each_row(pool_, num_rows, [&](std::int64_t row) {
    elementwise_.scale_softcap(
        logits + row * vocab, decoder_.logits_scale, decoder_.logits_softcap, vocab);
  });
}

}  // namespace

Result<std::unique_ptr<Model>> make_decoder(DecoderSpec spec,
                                            const Checkpoint& checkpoint,
                                            const ModelOptions& options,
                                            ThreadPool& pool,
                                            Communicator& comm) {
  if (comm.world_size() != 1) return unsupported("tensor parallelism is not supported yet");
  auto model = std::make_unique<Decoder>(std::move(spec), options, pool);
  PM_TRY(model->load({checkpoint, options.isa, options.compute, pool}));
  return std::unique_ptr<Model>(std::move(model));
}

}  // namespace pagemill
