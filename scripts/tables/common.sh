# Sourced by the tables' scripts, each of which reads like its table:
#
#   begin NUMBER "$@"                     reads the command line
#   needs refhuman coco                   folders of data: $refhuman and $coco
#   run NAME CONFIG [flags]               a training with its evaluation; not again if it is finished
#   train NAME CONFIG [flags]             the same, where the table shows another evaluation
#   evaluate NAME RUN CONFIG [flags]      the checkpoint of training RUN; flags are those of main.py
#   count SPLIT                           statistics of $refhuman
#   table                                 the table from all of them

caller="$PWD"
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh"
trap 'exit 130' INT
trap 'exit 143' TERM

usage() {
    sed -n '2,/^set/s/^# \{0,1\}//p' "$script"
    cat <<END

  bash scripts/tables/$(basename "$script") [options] [-- flags of main.py for every training]

  --data FOLDER         RefHuman (default: data/RefHuman); of a table on COCO alone: COCO
  --coco FOLDER         COCO 2017, where the table needs it (default: data/coco)
  --checkpoint FILE...  evaluate these instead of training: NAME=FILE, or files in this order:
                        $(sed -n 's/^\(run\|train\) \([^ ]*\).*/\2/p' "$script" | paste -sd' ')
                        What is not given is not trained then.
  --output FOLDER       takes table.md, table.json and table.png (default: outputs/tables/$label)
  --runs FOLDER         of all tables' trainings (default: outputs/tables/runs): what one has
                        trained the others don't train again
  --gpus N              1, 2, 4, 8 or 16 (default: those that are visible); 0: the CPU.
                        A step is of 16 images in all.
  --smoke               the same path with tiny models on a few synthetic images, on the CPU, in
                        outputs/tables/smoke; its figures mean nothing

A run that was interrupted goes on with the same command, a finished one is not run again. ImageNet
weights: \$SWIN_WEIGHTS (default: weights/swin_tiny_patch4_window7_224.pth).
END
}

refuse() {
    echo "error: $1 ($(basename "$script") --help explains.)" >&2
    exit 2
}

absolute() { (cd "$caller" && realpath -m -- "$1"); }

begin() {
    number="$1" script="${BASH_SOURCE[1]}" label="$(printf 'table%02d' "$1")"
    shift
    local data="" coco="" output="" runs="" gpus="" files=() file
    smoke="" more=()
    while [ $# -gt 0 ]; do
        case "$1" in
            -h | --help) usage; exit 0 ;;
            --smoke) smoke=1; shift ;;
            --data | --coco | --output | --runs | --gpus)
                [[ $# -ge 2 && -n "$2" && "$2" != --* ]] || refuse "$1 needs a value."
                printf -v "${1#--}" '%s' "$2"
                shift 2 ;;
            --checkpoint)
                shift
                [[ $# -gt 0 && "$1" != --* ]] || refuse "--checkpoint needs a file."
                while [[ $# -gt 0 && "$1" != --* ]]; do files+=("$1"); shift; done ;;
            --) shift; more=("$@"); break ;;
            *) refuse "unknown argument '$1'." ;;
        esac
    done
    local home="outputs/tables${smoke:+/smoke}"
    output_folder="$(absolute "${output:-$PWD/$home/$label}")"
    runs_folder="$(absolute "${runs:-$PWD/$home/runs}")"
    data_folder="${data:+$(absolute "$data")}" coco_folder="${coco:+$(absolute "$coco")}"
    choose_processes "$gpus"
    given="" evaluated=()
    # Tiny models are no faster on several threads, and slower beside other work.
    [ -z "$smoke" ] || export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
    if [ ${#files[@]} -gt 0 ]; then
        local named=()
        for file in "${files[@]}"; do
            case "$file" in
                [a-z]*=*) named+=("${file%%=*}=$(absolute "${file#*=}")") ;;
                *) named+=("$(absolute "$file")") ;;
            esac
        done
        given="$("$PYTHON" tools/table.py given "$number" "${named[@]}")" || exit 2
    fi
}

# The command that starts main.py, and how 16 images a step are shared out.
choose_processes() {
    local gpus="$1"
    [[ -z "$gpus" || "$gpus" =~ ^(0|1|2|4|8|16)$ ]] ||
        refuse "16 images per step do not divide among '$gpus' GPUs; use 1, 2, 4, 8 or 16, or 0."
    if [ -z "$gpus" ] && [ -z "$smoke" ]; then
        gpus="$("$PYTHON" -c 'import torch
visible = torch.cuda.device_count()
print(max(n for n in (0, 1, 2, 4, 8, 16) if n <= visible))')"
    fi
    start=("$PYTHON" main.py --device cpu)
    if [ "${gpus:-0}" -gt 0 ]; then
        start=("$PYTHON" -m torch.distributed.run --standalone --nproc_per_node="$gpus" main.py)
    fi
    # At most the paper's four images at a time on a GPU: its memory is enough then.
    local processes="$((${gpus:-0} > 0 ? gpus : 1))"
    local batch="$((16 / processes < 4 ? 16 / processes : 4))"
    step=(batch_size="$batch" accumulation_steps="$((16 / processes / batch))")
}

# needs refhuman, coco, or coco_to_train: not if checkpoints are given.
needs() {
    refhuman="${data_folder:-data/RefHuman}" coco="${coco_folder:-data/coco}"
    [ "$*" != coco ] || coco="${coco_folder:-${data_folder:-data/coco}}"
    if [ -n "$smoke" ]; then
        make_smoke_data "$@"
        return
    fi
    local name
    for name in "$@"; do
        case "$name${given:+ given}" in
            refhuman*) there "$refhuman/RefHuman_val.json" --data ;;
            "coco_to_train given") ;;
            *) there "$coco/annotations/person_keypoints_val2017.json" \
                "$([ "$*" = coco ] && echo --data || echo --coco)" ;;
        esac
    done
}

there() { [ -f "$1" ] || refuse "$1 does not exist; give the folder of the data with $2."; }

# Shown at 96 pixels, but large enough for people of COCO's "large" size.
make_smoke_data() {
    refhuman="$runs_folder/data/RefHuman" coco="$runs_folder/data/coco"
    [ -f "$refhuman/RefHuman_val.json" ] ||
        "$PYTHON" tools/make_synthetic.py --output "$refhuman" --train 12 --val 6 --image-size 320 \
            --people 1 3 --difficulty 0.3 --captions 1 --workers 1
    [[ "$*" != *coco* || -f "$coco/annotations/person_keypoints_val2017.json" ]] ||
        "$PYTHON" tools/table.py smoke_coco "$refhuman" --output "$coco"
}

run() {
    local name="$1" config="$2" file
    file="$(given_for "$name")"
    if [ -n "$file" ]; then
        evaluate_file "$name" "$output_folder/given/$name" "$file" "$config" "${@:3}"
        evaluated+=("$name=$output_folder/given/$name")
    else
        train "$@"
    fi
}

train() {
    local name="$1" config="$2" folder="$runs_folder/$1" options=() swin
    shift 2
    [ -z "$given" ] || return 0 # given checkpoints are evaluated instead of training
    if finished "$folder"; then
        echo "== $name: finished already ($folder) =="
        return 0
    fi
    echo "== $name: training ($folder) =="
    if [ -z "$smoke" ]; then
        swin="${SWIN_WEIGHTS:-weights/swin_tiny_patch4_window7_224.pth}"
        [ -e "$swin" ] || refuse "$swin does not exist; name the Swin authors' file in SWIN_WEIGHTS."
        options=(--swin_pretrain_path "$swin" --options "${step[@]}")
    fi
    attempt "$name" main_program "$name" "$config" --output_dir "$folder" --resume auto \
        ${options[@]+"${options[@]}"} "$@" ${more[@]+"${more[@]}"}
}

evaluate() {
    local name="$1" training="$2" config="$3" file
    shift 3
    file="$(given_for "$training")"
    if [ -n "$file" ]; then
        evaluate_file "$name" "$output_folder/given/$name" "$file" "$config" "$@"
        evaluated+=("$name=$output_folder/given/$name")
    elif [ -z "$given" ] && finished "$runs_folder/$training"; then
        evaluate_file "$name" "$runs_folder/$name" "$runs_folder/$training/checkpoint.pth" \
            "$config" "$@"
    fi
}

# count SPLIT: the statistics of RefHuman's file of a split.
count() {
    attempt "the statistics of $1" "$PYTHON" tools/dataset_stats.py "$refhuman/RefHuman_$1.json" \
        --output "$runs_folder/refhuman_statistics/$1"
}

# evaluate_file NAME FOLDER CHECKPOINT CONFIG [flags]
evaluate_file() {
    local name="$1" folder="$2" file="$3" config="$4"
    shift 4
    if finished "$folder" --checkpoint "$file"; then
        echo "== $name: evaluated already ($folder) =="
        return 0
    fi
    echo "== $name: evaluating $file =="
    attempt "$name" main_program "$name" "$config" --output_dir "$folder" --eval --resume "$file" "$@"
}

# main_program NAME CONFIG [flags]
main_program() {
    local name="$1" config="$2" note=()
    shift 2
    if [ -n "$smoke" ]; then
        "$PYTHON" tools/table.py smoke_config "$config" \
            --output "$output_folder/configs/$name.py" || return
        config="$output_folder/configs/$name.py" note=(--note "smoke run")
    fi
    "${start[@]}" -c "$config" --coco_path "$refhuman" ${note[@]+"${note[@]}"} "$@"
}

# finished FOLDER [--checkpoint FILE]; a run that has only begun is known without asking.
finished() { [[ -f "$1/log.txt" || -f "$1/eval.json" ]] && "$PYTHON" tools/table.py finished "$@"; }

# The checkpoint that the command line gives for a training; nothing if it gives none.
given_for() { sed -n "s/^$1=//p" <<<"$given"; }

# attempt NAME COMMAND...: an error leaves the other rows; an interruption ends all.
attempt() {
    local name="$1" status=0
    shift
    "$@" || status=$?
    if [ "$status" -ge 128 ]; then
        echo "Interrupted in $name; the same command goes on." >&2
        exit "$status"
    elif [ "$status" -ne 0 ]; then
        echo "error: $name ended with status $status; its rows will be missing." >&2
    fi
}

table() {
    local flags=(${smoke:+--smoke})
    [ ${#evaluated[@]} -eq 0 ] || flags+=(--run "${evaluated[@]}")
    "$PYTHON" tools/table.py "$number" --runs "$runs_folder" --output "$output_folder" \
        ${flags[@]+"${flags[@]}"}
}
